import { TextTokenizer } from "./text.js";
export type Pixels = import("./image.js").Pixels;
export type EncodedText = import("./text.js").EncodedText;
export type TextPrediction = import("./prediction.js").TextPrediction;
export type ImagePrediction = import("./prediction.js").ImagePrediction;
export type Session = import("onnxruntime-common").InferenceSession;
export type OutputTensor = import("onnxruntime-common").Tensor;
export type PredictOptions = {
    /**
     * rows that are run together, 32 by default; answers do not depend on it
     */
    batchSize?: number;
    /**
     * what offsets count: the units of JavaScript strings, so that
     * `text.slice(start, end)` is the span (default), or code points as in Python
     */
    offsets?: "utf16" | "codepoint";
    /**
     * cut texts that are too long (default), or throw
     */
    truncate?: boolean;
};
/** An open bundle. */
export declare class Engine {
    #private;
    manifest: import("./bundle.js").Manifest;
    session: import("onnxruntime-common").InferenceSession;
    tokenizer: TextTokenizer | undefined;
    outputs: string[];
    /**
     * @param {import("./bundle.js").Bundle} bundle
     * @param {Session} session
     */
    constructor(bundle: import("./bundle.js").Bundle, session: Session);
    /**
     * Open a bundle.
     *
     * @param {import("./bundle.js").ReadFile} read
     * @param {string} place
     * @param {{ verify?: boolean, threads?: number }} options
     */
    static open(read: import("./bundle.js").ReadFile, place: string, options: {
        verify?: boolean;
        threads?: number;
    }): Promise<Engine>;
    /**
     * Predict texts or images, answered in the same order.
     *
     * @param {unknown[]} inputs
     * @param {PredictOptions} [options]
     * @returns {Promise<(TextPrediction | ImagePrediction)[]>}
     */
    predict(inputs: unknown[], options?: PredictOptions): Promise<(TextPrediction | ImagePrediction)[]>;
    /**
     * Tokenise texts as the graph will see them; offsets count code points.
     *
     * @param {unknown[]} texts
     * @returns {EncodedText[]}
     */
    encode(texts: unknown[]): EncodedText[];
}
