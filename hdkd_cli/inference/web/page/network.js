// The exported file, run by onnxruntime-web: one image at a time, so that it stops by itself.

import * as ort from '../runtime/ort.wasm.bundle.min.mjs';

ort.env.wasm.numThreads = 1; // more need headers that plain web servers do not send
ort.env.wasm.wasmPaths = { wasm: new URL('../runtime/ort-wasm-simd-threaded.wasm', import.meta.url).href };

const NEVER = 2; // no confidence is above 1

export class Network {
  static async open(file, about) {
    const session = await ort.InferenceSession.create(file, { executionProviders: ['wasm'] });
    const network = new Network(session, about);
    await network.trace(new Float32Array(3 * about.transform.crop ** 2)); // a first run is slow
    return network;
  }

  constructor(session, about) {
    this.session = session;
    this.side = about.transform.crop;
    this.exits = about.macs.length;
  }

  /** Where an image leaves, by thresholds (K-1) of which null means never. */
  async answer(pixels, thresholds) {
    const given = Float32Array.from(thresholds, (threshold) => threshold ?? NEVER);
    const feeds = {
      image: new ort.Tensor('float32', pixels, [1, 3, this.side, this.side]),
      thresholds: new ort.Tensor('float32', given, [given.length]),
    };
    const began = performance.now();
    const found = await this.session.run(feeds);
    const ms = performance.now() - began;
    const [confidence] = found.confidence.data;
    if (Number.isNaN(confidence)) throw new Error('the network says what is not a number');
    return { label: Number(found.prediction.data[0]), exit: Number(found.exit.data[0]), confidence, ms };
  }

  /** What every exit says of an image, by sending it to each. */
  async trace(pixels) {
    const answers = [];
    for (let exit = 1; exit <= this.exits; exit += 1) {
      const thresholds = Array.from({ length: this.exits - 1 }, (_, k) => (k + 1 < exit ? null : 0));
      answers.push(await this.answer(pixels, thresholds));
    }
    return answers;
  }
}
