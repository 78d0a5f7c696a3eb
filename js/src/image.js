// Pixels to the graph's input, byte for byte as Pillow and numpy do it in Python:
// https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c

import { RekdEdgeError } from "./errors.js";

/**
 * Pixels row by row: grey, grey with alpha, RGB or RGBA. An `ImageData` is one.
 *
 * @typedef {object} Pixels
 * @property {Uint8Array | Uint8ClampedArray} data
 * @property {number} width
 * @property {number} height
 */

/**
 * @typedef {object} ImageSettings as the manifest holds them
 * @property {number} height
 * @property {number} width
 * @property {number} patch_size
 * @property {number} resample
 * @property {number} rescale_factor
 * @property {number[]} mean
 * @property {number[]} std
 */

const MAX_SIDE = 65_535;
const MAX_PIXELS = Math.floor(2 ** 28 / 3);
const PRECISION = 22; // bits of a coefficient

/** @param {number} x */
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

/** @type {Record<number, { support: number, weight: (x: number) => number }>} */
const FILTERS = {
  1: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) }, // Lanczos
  2: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  3: { support: 2, weight: cubic },
  4: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) }, // box
  5: { support: 1, weight: hamming },
};

/** @param {number} x */
function cubic(x) {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

/** @param {number} x */
function hamming(x) {
  const d = Math.abs(x);
  if (d === 0) return 1;
  return d >= 1 ? 0 : (Math.sin(d * Math.PI) / (d * Math.PI)) * (0.54 + 0.46 * Math.cos(d * Math.PI));
}

/**
 * The pixels that the model reads: RGB of its size, transparency on white.
 *
 * @param {Pixels} image
 * @param {ImageSettings} settings
 * @returns {Uint8ClampedArray} [height, width, 3]
 */
export function modelPixels(image, settings) {
  const { width, height } = image;
  checkImage(image);
  const rgb = toRgb(image.data, width * height);
  if (width === settings.width && height === settings.height) return rgb;

  const { weight } = FILTERS[settings.resample] ?? {};
  if (!weight) return nearest(rgb, width, height, settings);

  const { resample } = settings;
  const across = (/** @type {Uint8ClampedArray} */ pixels, /** @type {number} */ rows) =>
    width === settings.width ? pixels : resizeRows(pixels, width, rows, settings.width, resample);
  const down = (/** @type {Uint8ClampedArray} */ pixels, /** @type {number} */ columns) =>
    height === settings.height ? pixels : resizeColumns(pixels, columns, height, settings.height, resample);

  return isTall(image, settings) ? across(down(rgb, width), settings.height) : down(across(rgb, height), settings.width);
}

/**
 * Whether Pillow resizes down before it resizes across, from version 13 on (pull request 9549). Earlier ones never do,
 * and such images then differ by up to 2 of 255 levels, because each pass rounds.
 *
 * @param {Pixels} image
 * @param {ImageSettings} settings
 */
function isTall({ width, height }, settings) {
  return height > settings.height && height - settings.height > 2 * (width - settings.width);
}

/**
 * @param {Uint8ClampedArray} pixels [height, width, 3]
 * @param {ImageSettings} settings
 * @param {Float32Array} output [3, height, width], filled
 */
export function normalise(pixels, settings, output) {
  const plane = settings.height * settings.width;
  for (let channel = 0; channel < 3; channel++) {
    const [mean, std] = [Math.fround(settings.mean[channel]), Math.fround(settings.std[channel])];
    const values = new Float32Array(256);
    for (let level = 0; level < 256; level++) {
      values[level] = Math.fround(Math.fround(level * settings.rescale_factor) - mean) / std;
    }
    for (let i = 0; i < plane; i++) output[channel * plane + i] = values[pixels[3 * i + channel]];
  }
}

/**
 * @param {any} image
 */
function checkImage(image) {
  const bytes = image?.data;
  if (!(bytes instanceof Uint8Array) && !(bytes instanceof Uint8ClampedArray)) {
    throw new RekdEdgeError("input", "An image is { data, width, height } with bytes as data, such as an ImageData.");
  }
  const { width, height } = image;
  if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
    throw new RekdEdgeError("input", "An image needs a width and a height of 1 or more.");
  }
  if (Math.max(width, height) > MAX_SIDE || width * height > MAX_PIXELS) {
    throw new RekdEdgeError(
      "input",
      `An image of ${width} x ${height} pixels is too large; give one of at most ${MAX_SIDE} a side and ${MAX_PIXELS} in all.`,
    );
  }
  if (![1, 2, 3, 4].includes(bytes.length / (width * height))) {
    throw new RekdEdgeError("input", `${bytes.length} bytes are no image of ${width} x ${height} pixels; give 1 to 4 a pixel.`);
  }
}

/**
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {number} count of pixels
 */
function toRgb(data, count) {
  const channels = data.length / count;
  const rgb = new Uint8ClampedArray(3 * count);
  const colours = channels > 2 ? 3 : 1;
  const withAlpha = channels === 2 || channels === 4;

  for (let i = 0; i < count; i++) {
    const alpha = withAlpha ? data[i * channels + channels - 1] : 255;
    for (let channel = 0; channel < 3; channel++) {
      const value = data[i * channels + (colours === 3 ? channel : 0)];
      rgb[3 * i + channel] = alpha === 255 ? value : onWhite(value, alpha);
    }
  }
  return rgb;
}

/**
 * Pillow's alpha_composite on white, in its integers.
 *
 * @param {number} value
 * @param {number} alpha
 */
function onWhite(value, alpha) {
  if (alpha === 0) return 255;
  const share = alpha * 128;
  const sum = value * share + 255 * (255 * 128 - share) + (0x80 << 7);
  return ((sum >> 8) + sum) >> 8 >> 7;
}

/**
 * For every output position: the first input that it reads, and integer weights.
 *
 * @param {number} size
 * @param {number} wanted
 * @param {number} resample
 */
function coefficients(size, wanted, resample) {
  const filter = FILTERS[resample];
  const scale = size / wanted;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;

  return Array.from({ length: wanted }, (_, at) => {
    const centre = (at + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: end - first }, (_, x) => filter.weight((x + first - centre + 0.5) * (1 / stretch)));
    const sum = weights.reduce((total, each) => total + each, 0);
    const shares = sum === 0 ? weights : weights.map((each) => each / sum);
    return {
      first,
      weights: Int32Array.from(shares, (each) => Math.trunc((each < 0 ? -0.5 : 0.5) + each * 2 ** PRECISION)),
    };
  });
}

/**
 * @param {Uint8ClampedArray} rgb
 * @param {number} width
 * @param {number} height
 * @param {number} wanted
 * @param {number} resample
 */
function resizeRows(rgb, width, height, wanted, resample) {
  const output = new Uint8ClampedArray(3 * wanted * height);
  coefficients(width, wanted, resample).forEach(({ first, weights }, at) => {
    for (let y = 0; y < height; y++) {
      weighted(rgb, 3 * (y * width + first), 3, weights, output, 3 * (y * wanted + at));
    }
  });
  return output;
}

/**
 * @param {Uint8ClampedArray} rgb
 * @param {number} width
 * @param {number} height
 * @param {number} wanted
 * @param {number} resample
 */
function resizeColumns(rgb, width, height, wanted, resample) {
  const output = new Uint8ClampedArray(3 * width * wanted);
  coefficients(height, wanted, resample).forEach(({ first, weights }, at) => {
    for (let x = 0; x < width; x++) {
      weighted(rgb, 3 * (first * width + x), 3 * width, weights, output, 3 * (at * width + x));
    }
  });
  return output;
}

/**
 * @param {Uint8ClampedArray} rgb
 * @param {number} from
 * @param {number} step
 * @param {Int32Array} weights
 * @param {Uint8ClampedArray} output
 * @param {number} to
 */
function weighted(rgb, from, step, weights, output, to) {
  const half = 1 << (PRECISION - 1);
  let [red, green, blue] = [half, half, half];
  for (let i = 0, at = from; i < weights.length; i++, at += step) {
    red += rgb[at] * weights[i];
    green += rgb[at + 1] * weights[i];
    blue += rgb[at + 2] * weights[i];
  }
  output[to] = red >> PRECISION;
  output[to + 1] = green >> PRECISION;
  output[to + 2] = blue >> PRECISION;
}

/**
 * @param {Uint8ClampedArray} rgb
 * @param {number} width
 * @param {number} height
 * @param {ImageSettings} settings
 */
function nearest(rgb, width, height, settings) {
  const output = new Uint8ClampedArray(3 * settings.width * settings.height);
  for (let y = 0; y < settings.height; y++) {
    const row = Math.floor(((y + 0.5) * height) / settings.height);
    for (let x = 0; x < settings.width; x++) {
      const column = Math.floor(((x + 0.5) * width) / settings.width);
      const from = 3 * (row * width + column);
      output.set(rgb.subarray(from, from + 3), 3 * (y * settings.width + x));
    }
  }
  return output;
}
