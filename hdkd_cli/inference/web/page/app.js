// The page: images in, cards out, and a slider. What is computed, worker.js computes.

import { makeCard, showAnswer } from './card.js';
import { percent, plural } from './words.js';

const MEASURES = {
  'max-prob': 'Sure: the probability of its class.',
  margin: 'Sure: how far the probability of its class is above that of the next one.',
  entropy: 'Sure: 1 where one class has all probability, 0 where all have the same.',
};

const at = (id) => document.getElementById(id);
const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
const waiting = new Map();
let calls = 0;

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};
worker.onerror = (event) => fail(event.message || 'the worker cannot be started');

function call(name, given) {
  calls += 1;
  worker.postMessage({ id: calls, call: name, ...given });
  return new Promise((resolve, reject) => waiting.set(calls, { resolve, reject }));
}

let about; // network.json
let stop; // place of the slider
let pictures = []; // {name, truth, image, trace, answers: stop -> answer, card}

async function start() {
  const response = await fetch(new URL('../network.json', import.meta.url));
  if (!response.ok) throw new Error(`network.json cannot be read (${response.status})`);
  about = await response.json();
  introduce();
  at('status').textContent = 'Loading the network …';
  await call('open', { about });
  at('status').textContent = '';
  for (const id of ['panel', 'drop', 'shown']) at(id).hidden = false;
  listen();
  await addExamples();
}

function introduce() {
  const [exits, full] = [about.macs.length, about.macs.at(-1)];
  const first = percent(about.macs[0] / full);
  at('about').textContent =
    `This network tells ${about.labels.length} classes apart, and has ${exits} exits. It looks at ` +
    `an image in stages and stops at the first exit that is sure enough. The first one costs ` +
    `${first} of the whole.`;
  at('measure').textContent = MEASURES[about.confidence];
  at('runs-on').textContent =
    `${about.network}, ${(full / 1e6).toFixed(1)} million multiply-accumulates in full; run by ` +
    `${about.runtime} on one thread. Checkpoint ${about.checkpoint_sha256.slice(0, 12)}.`;
  at('budget').max = about.stops.length - 1;
  at('budget').value = about.start;
  moveTo(about.start);
}

function listen() {
  at('budget').addEventListener('input', () => moveTo(Number(at('budget').value)));
  at('files').addEventListener('change', () => {
    addFiles([...at('files').files]);
    at('files').value = ''; // so that the same file can be chosen again
  });
  at('clear').addEventListener('click', clear);
  at('again').addEventListener('click', addExamples);
  const over = (event, yes) => {
    event.preventDefault();
    document.body.classList.toggle('over', yes);
  };
  document.addEventListener('dragover', (event) => over(event, true));
  document.addEventListener('dragleave', (event) => over(event, false));
  document.addEventListener('drop', (event) => {
    over(event, false);
    addFiles([...event.dataTransfer.files]);
  });
}

// -- images -----------------------------------------------------------------------------------

let generation = 0; // what was asked for before "Remove all" does not come back after it

function clear() {
  generation += 1;
  for (const { card, url } of pictures) {
    card.remove();
    URL.revokeObjectURL(url);
  }
  pictures = [];
  at('problems').replaceChildren();
  summarise();
}

function addFiles(files) {
  at('problems').replaceChildren();
  return add(files.map((file) => ({ name: file.name, truth: null, load: () => file })));
}

function addExamples() {
  const there = new Set(pictures.map((picture) => picture.name));
  const examples = about.examples.map(({ file, label }) => ({
    name: file,
    truth: label,
    load: async () => (await fetch(new URL(`../${file}`, import.meta.url))).blob(),
  }));
  return add(examples.filter((example) => !there.has(example.name)));
}

async function add(found) {
  const mine = generation;
  for (const [i, { name, truth, load }] of found.entries()) {
    if (found.length > 1) at('status').textContent = `Reading image ${i + 1} of ${found.length} …`;
    try {
      const file = await load();
      const { image, trace } = await call('add', { file });
      if (mine !== generation) break;
      const url = URL.createObjectURL(file);
      const picture = { name, truth, url, image, trace, answers: new Map() };
      picture.card = makeCard(picture, about);
      pictures.push(picture);
      place(picture);
      await settle();
    } catch (problem) {
      complain(`${name} ${problem.message}`);
    }
  }
  at('status').textContent = '';
}

/** Images of one's own come before the examples. */
function place({ card, truth }) {
  const firstExample = truth === null && pictures.find((other) => other.truth !== null);
  at('cards').insertBefore(card, firstExample ? firstExample.card : null);
}

function complain(text) {
  const line = document.createElement('li');
  line.textContent = text;
  at('problems').append(line);
}

// -- the budget -------------------------------------------------------------------------------

function moveTo(number) {
  stop = number;
  const full = about.stops.at(-1);
  const { val_macs, val_top1_pct } = about.stops[stop];
  const share = percent(val_macs / about.macs.at(-1));
  at('share').textContent = `${share} of the full network`;
  at('budget').setAttribute('aria-valuetext', `${share} of the full network's cost`);
  at('validation').textContent =
    stop === about.stops.length - 1
      ? `Nothing leaves early. On validation images ${val_top1_pct.toFixed(1)} % are right.`
      : `On validation images this is what it costs on average, and ${val_top1_pct.toFixed(1)} % ` +
        `are right; of the full network's answers ${full.val_top1_pct.toFixed(1)} %.`;
  settle();
}

let settling = null;

/** Let every image leave by the budget as it is now; the slider may move meanwhile. */
function settle() {
  settling ??= answerAll().finally(() => {
    settling = null;
  });
  return settling;
}

async function answerAll() {
  let shown;
  for (;;) {
    const [now, mine] = [stop, generation];
    const show = (picture) => showAnswer(picture, picture.answers.get(now), about, about.stops[now]);
    if (shown !== now) pictures.forEach(show);
    shown = now;
    summarise();
    const next = pictures.find((picture) => !picture.answers.has(now));
    if (!next) return;
    const { thresholds } = about.stops[now];
    const answer = await call('answer', { image: next.image, thresholds });
    if (mine !== generation) continue;
    next.answers.set(now, answer);
    if (now === stop) show(next);
  }
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

function summarise() {
  const done = pictures.filter((picture) => picture.answers.has(stop));
  const answers = done.map((picture) => picture.answers.get(stop));
  at('count').textContent = `Where ${plural(done.length, 'image')} left`;
  at('exits').replaceChildren(...about.macs.map((_, k) => bar(k, answers)));
  const saved = at('saved');
  if (!done.length) {
    saved.textContent = '–';
    at('time').textContent = at('right').textContent = '';
    return;
  }
  saved.textContent = percent(1 - mean(answers.map(({ exit }) => about.macs[exit - 1])) / about.macs.at(-1));
  const ms = about.macs.map((_, k) => median(done.map(({ trace }) => trace[k].ms))); // to each exit
  const here = mean(answers.map(({ exit }) => ms[exit - 1]));
  at('time').textContent =
    `${here.toFixed(1)} ms per image in this browser; ${ms.at(-1).toFixed(1)} ms in full.`;
  const known = done.filter(({ truth }) => truth !== null);
  const right = known.filter(({ truth, answers: of }) => of.get(stop).label === truth);
  const late = known.filter(({ truth, trace }) => trace.at(-1).label === truth);
  at('right').textContent = known.length
    ? `${right.length} of ${plural(known.length, 'example')} right; by the last exit, ${late.length}.`
    : '';
}

function bar(k, answers) {
  const count = answers.filter(({ exit }) => exit === k + 1).length;
  const item = document.createElement('li');
  item.style.setProperty('--late', `${(100 * k) / Math.max(1, about.macs.length - 1)}%`);
  item.style.setProperty('--size', answers.length ? count / answers.length : 0);
  item.append(span('exit', `exit ${k + 1}`), span('fill', ''), span('number', String(count)));
  return item;
}

function span(name, text) {
  const element = document.createElement('span');
  element.className = name;
  element.textContent = text;
  return element;
}

function fail(message) {
  at('status').hidden = true;
  complain(`This page cannot start: ${message.replace(/\.$/, '')}.`);
}

start().catch((problem) => fail(problem.message));
