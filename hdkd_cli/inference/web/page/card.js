// One image: what it was taken for, where it left, and how sure each exit was of it.

import { percent } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';
// The drawing: left and right end of the axis of cost, top and bottom of that of confidence.
const [LEFT, RIGHT, TOP, BOTTOM] = [42, 276, 10, 92];

/** The card of {name, url, truth, trace}; its answer comes later. */
export function makeCard({ name, url, truth }, about) {
  const card = make('li', { className: 'card' });
  const picture = make('img', { src: url, alt: truth === null ? name : `an image of ${about.labels[truth]}` });
  picture.addEventListener('load', () => {
    picture.classList.toggle('small', picture.naturalWidth < 200);
  });
  const head = make('div', { className: 'head' }, picture, make('div', { className: 'says' }));
  card.append(
    head,
    make('div', { className: 'curve' }),
    make('p', { className: 'where' }),
    make('details', {}, make('summary', { textContent: 'Exit by exit' }), make('div')),
  );
  return card;
}

/** What the card shows at a stop of the slider; no answer: it is being computed. */
export function showAnswer({ card, name, truth, trace }, answer, about, stop) {
  card.setAttribute('aria-busy', String(!answer));
  if (!answer || card.shown === answer) return;
  card.shown = answer;
  const part = (selector) => card.querySelector(selector);
  const share = about.macs[answer.exit - 1] / about.macs.at(-1);
  const lines = [
    make('h3', { textContent: about.labels[answer.label] }),
    make('p', { className: 'sure', textContent: `sure to ${percent(answer.confidence)}` }),
  ];
  if (truth === null) lines.push(make('p', { className: 'file', textContent: name, title: name }));
  else lines.push(verdict(answer.label === truth, about.labels[truth]));
  part('.says').replaceChildren(...lines);
  part('.curve').replaceChildren(curve(trace, answer, about, stop));
  part('.where').replaceChildren(
    make('strong', { textContent: `Left at exit ${answer.exit} of ${about.macs.length}` }),
    ` · ${percent(share)} of the cost`,
  );
  part('.where').style.setProperty('--late', late(answer.exit - 1, about));
  part('details div').replaceChildren(table(trace, answer, about, stop));
}

function verdict(right, label) {
  return make('p', {
    className: right ? 'right' : 'wrong',
    textContent: right ? '✓ right' : `✗ it is: ${label}`,
  });
}

const late = (k, about) => `${(100 * k) / Math.max(1, about.macs.length - 1)}%`;

function curve(trace, answer, about, stop) {
  const x = (k) => LEFT + ((RIGHT - LEFT) * about.macs[k]) / about.macs.at(-1);
  const y = (confidence) => BOTTOM - (BOTTOM - TOP) * confidence;
  const points = trace.map(({ confidence }, k) => [x(k), y(confidence)]);
  const told = trace.slice(0, answer.exit).map(
    ({ label, confidence }, k) => `exit ${k + 1}: ${about.labels[label]}, ${percent(confidence)}`,
  );
  const drawing = draw('svg', {
    viewBox: '0 0 288 112',
    role: 'img',
    'aria-label': `Confidence, ${told.join('; ')}. It left there.`,
  });
  for (const level of [0, 0.5, 1]) {
    drawing.append(
      draw('line', { class: 'grid', x1: LEFT, x2: RIGHT + 6, y1: y(level), y2: y(level) }),
      draw('text', { class: 'tick', x: LEFT - 6, y: y(level) + 3.5, 'text-anchor': 'end' }, level === 0 ? '0' : `${100 * level} %`),
    );
  }
  drawing.append(draw('text', { class: 'tick', x: LEFT - 6, y: BOTTOM + 16, 'text-anchor': 'end' }, 'exit'));
  const line = (some) => some.map((point) => point.join(',')).join(' ');
  drawing.append(
    draw('polyline', { class: 'rest', points: line(points.slice(answer.exit - 1)) }),
    draw('polyline', { class: 'way', points: line(points.slice(0, answer.exit)) }),
  );
  for (const [k, [px, py]] of points.entries()) {
    const needed = stop.thresholds[k] ?? null;
    const reached = k + 1 < answer.exit ? 'passed' : k + 1 === answer.exit ? 'here' : 'never';
    if (needed !== null && needed <= 1) {
      drawing.append(
        draw('line', { class: 'needed', x1: px - 8, x2: px + 8, y1: y(needed), y2: y(needed) }),
      );
    }
    const point = draw('circle', { class: reached, cx: px, cy: py, r: reached === 'here' ? 6 : 3.5 });
    point.style.setProperty('--late', late(k, about));
    drawing.append(
      point,
      draw('text', { class: `tick ${reached}`, x: px, y: BOTTOM + 16, 'text-anchor': 'middle' }, `${k + 1}`),
    );
  }
  return drawing;
}

function table(trace, answer, about, stop) {
  const rows = trace.map(({ label, confidence }, k) => {
    const needed = stop.thresholds[k]; // the last exit has none
    const cells = [
      about.labels[label],
      confidence.toFixed(3),
      needed === undefined ? 'nothing' : needed === null ? 'never' : needed.toFixed(3),
      percent(about.macs[k] / about.macs.at(-1)),
    ];
    const row = make('tr', { className: k + 1 === answer.exit ? 'here' : k < answer.exit ? '' : 'never' });
    row.append(
      make('th', { scope: 'row', textContent: String(k + 1) }),
      ...cells.map((textContent) => make('td', { textContent })),
    );
    return row;
  });
  const names = ['exit', 'says', 'sure', 'needed', 'cost'];
  return make(
    'table',
    {},
    make('thead', {}, make('tr', {}, ...names.map((textContent) => make('th', { scope: 'col', textContent })))),
    make('tbody', {}, ...rows),
  );
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
