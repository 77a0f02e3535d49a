// An image as evaluation sees it. The arithmetic is Pillow's, whole numbers included, so that the
// page answers as `hdkd predict` does: shorter side resized with antialiasing, centre cut out,
// (x / 255 - mean) / std.

const LONGEST = 1000; // longer side over shorter side of an image that is read
const STRIP = 64; // of so long a strip only the part is resized that is cut out
const BITS = 22; // Pillow's weights are whole numbers of this many bits after the point

export class Unreadable extends Error {}

/** A file's pixels: {width, height, data: RGBA}, upright, its colours as they are stored. */
export async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: 'none',
      premultiplyAlpha: 'none',
      imageOrientation: 'from-image',
    });
  } catch {
    throw new Unreadable('is not an image that this browser can read');
  }
  const { width, height } = bitmap;
  if (Math.max(width, height) > LONGEST * Math.min(width, height)) {
    throw new Unreadable(`is ${width}×${height} pixels: too long a strip`);
  }
  try {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return { width, height, data: context.getImageData(0, 0, width, height).data };
  } catch {
    throw new Unreadable(`is ${width}×${height} pixels: more than this browser can hold`);
  } finally {
    bitmap.close();
  }
}

/** What the network takes: Float32Array of (3, crop, crop). */
export function prepare(image, transform) {
  const { crop, mean, std } = transform;
  const pixels = frame(image, transform).data;
  const size = crop * crop;
  const result = new Float32Array(3 * size);
  const round = Math.fround; // every step in single precision, as there
  for (let channel = 0; channel < 3; channel += 1) {
    const [m, s] = [round(mean[channel]), round(std[channel])];
    for (let i = 0; i < size; i += 1) {
      const x = round(pixels[3 * i + channel] / 255);
      result[channel * size + i] = round(round(x - m) / s);
    }
  }
  return result;
}

/** The shorter side resized, the centre cut out: {data: RGB, crop × crop}. */
export function frame({ width, height, data }, { resize, crop, interpolation }) {
  let [across, down] = [width, height];
  if (Math.min(width, height) !== resize) {
    [across, down] =
      width <= height
        ? [resize, Math.trunc((resize * height) / width)]
        : [Math.trunc((resize * width) / height), resize];
  }
  const filter = FILTERS[interpolation.split(',')[0]];
  const left = halfEven((across - crop) / 2);
  const top = halfEven((down - crop) / 2);
  const strip = Math.max(across, down) > STRIP * resize; // there, only what is cut out is resized
  const part = strip ? boxed : windowed;
  const columns = weights(width, part(width, across, left, crop), crop, filter);
  const rows = weights(height, part(height, down, top, crop), crop, filter);

  const whole = { data, step: 4, width, left: 0, top: 0 };
  const [shrinksX, shrinksY] = [width - (strip ? crop : across), height - (strip ? crop : down)];
  return shrinksY > 0 && shrinksY > 2 * shrinksX // Pillow's order; each pass is rounded
    ? acrossOf(downOf(whole, rows, span(columns)), columns, [0, crop])
    : downOf(acrossOf(whole, columns, span(rows)), rows, [0, crop]);
}

// Passes take and return {data, step: bytes per pixel, width, left, top: of what it is a part}.

/** Every pixel a sum of pixels beside each other, in rows from `first` to `end`. */
function acrossOf({ data, step, width, left, top }, columns, [first, end]) {
  const result = new Uint8Array(3 * columns.length * (end - first));
  for (let y = first, at = 0; y < end; y += 1) {
    for (const { from, of } of columns) {
      sum(of, data, step * ((y - top) * width + from - left), step, result, at);
      at += 3;
    }
  }
  return { data: result, step: 3, width: columns.length, left: 0, top: first };
}

/** Every pixel a sum of pixels below each other, in columns from `first` to `end`. */
function downOf({ data, step, width, left, top }, rows, [first, end]) {
  const result = new Uint8Array(3 * rows.length * (end - first));
  let at = 0;
  for (const { from, of } of rows) {
    for (let x = first; x < end; x += 1) {
      sum(of, data, step * ((from - top) * width + x - left), step * width, result, at);
      at += 3;
    }
  }
  return { data: result, step: 3, width: end - first, left: first, top: 0 };
}

/** The pixels that weights are for: [first, end). */
function span(weighted) {
  return [
    Math.min(...weighted.map(({ from }) => from)),
    Math.max(...weighted.map(({ from, of }) => from + of.length)),
  ];
}

/** Weighted sums of three channels, rounded and clipped to a byte. */
function sum(of, source, start, step, target, at) {
  let [r, g, b] = [1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)];
  for (let i = 0, place = start; i < of.length; i += 1, place += step) {
    r += of[i] * source[place];
    g += of[i] * source[place + 1];
    b += of[i] * source[place + 2];
  }
  target[at] = byte(r >> BITS);
  target[at + 1] = byte(g >> BITS);
  target[at + 2] = byte(b >> BITS);
}

const byte = (value) => Math.min(255, Math.max(0, value));

/** Pixels of an image resized whole, from `first` on. */
const windowed = (before, after, first) => ({ scale: before / after, start: 0, first });

/** Pixels of a box resized on its own; its sides are in single precision, as in Pillow. */
function boxed(before, after, first, count) {
  const scale = before / after;
  const start = Math.fround(first * scale);
  const end = Math.fround(Math.min((first + count) * scale, before));
  return { scale: Math.fround(end - start) / count, start, first: 0 };
}

/** What each of `count` pixels is made of: {from, of: whole-number weights}. */
function weights(before, { scale, start, first }, count, filter) {
  const wide = Math.max(scale, 1);
  const reach = filter.reach * wide;
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (first + i + 0.5) * scale;
    const from = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const to = Math.min(Math.trunc(centre + reach + 0.5), before);
    const of = Float64Array.from({ length: to - from }, (_, j) =>
      filter.at((from + j - centre + 0.5) / wide),
    );
    const total = of.reduce((a, b) => a + b, 0);
    return {
      from,
      of: of.map((weight) => {
        const whole = (weight / total) * (1 << BITS);
        return Math.trunc(whole + (whole < 0 ? -0.5 : 0.5));
      }),
    };
  });
}

const FILTERS = {
  bilinear: { reach: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    reach: 2,
    at: (signed) => {
      const [x, a] = [Math.abs(signed), -0.5];
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
};

/** Python's round: halves go to the even neighbour. */
function halfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
