export type Pixels = {
    data: Uint8Array | Uint8ClampedArray;
    width: number;
    height: number;
};
export type ImageSettings = {
    height: number;
    width: number;
    patch_size: number;
    resample: number;
    rescale_factor: number;
    mean: number[];
    std: number[];
};
/**
 * The pixels that the model reads: RGB of its size, transparency on white.
 *
 * @param {Pixels} image
 * @param {ImageSettings} settings
 * @returns {Uint8ClampedArray} [height, width, 3]
 */
export declare function modelPixels(image: Pixels, settings: ImageSettings): Uint8ClampedArray;
/**
 * @param {Uint8ClampedArray} pixels [height, width, 3]
 * @param {ImageSettings} settings
 * @param {Float32Array} output [3, height, width], filled
 */
export declare function normalise(pixels: Uint8ClampedArray, settings: ImageSettings, output: Float32Array): void;
