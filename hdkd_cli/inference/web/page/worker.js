// Computes beside the page, which stays quick. A message is {id, call, ...}; each is answered by
// {id, result} or {id, error}.

import { Network } from './network.js';
import { decode, prepare } from './prepare.js';

const images = [];
let network;
let transform;

const calls = {
  /** Load the network. */
  async open({ about }) {
    const response = await fetch(new URL('../network.onnx', import.meta.url));
    if (!response.ok) throw new Error(`network.onnx cannot be read (${response.status})`);
    network = await Network.open(new Uint8Array(await response.arrayBuffer()), about);
    transform = about.transform;
  },
  /** Read an image, and what every exit says of it: {image: its number, trace}. */
  async add({ file }) {
    const pixels = prepare(await decode(file), transform);
    const trace = await network.trace(pixels);
    return { image: images.push(pixels) - 1, trace };
  },
  /** Where an image leaves. */
  answer: ({ image, thresholds }) => network.answer(images[image], thresholds),
};

let before = Promise.resolve(); // one at a time, in their order

onmessage = ({ data }) => {
  before = before.then(async () => {
    try {
      postMessage({ id: data.id, result: await calls[data.call](data) });
    } catch (problem) {
      postMessage({ id: data.id, error: problem.message });
    }
  });
};
