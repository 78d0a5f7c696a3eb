import * as ort from "onnxruntime-web/wasm";
export type WorkerHandle = import("./messages.js").WorkerHandle;
export type Answer = import("./messages.js").Answer;
/** @typedef {import("./messages.js").WorkerHandle} WorkerHandle */
/** @typedef {import("./messages.js").Answer} Answer */
export declare const Tensor: ort.TensorConstructor;
/**
 * An address as an absolute one, a folder's.
 *
 * @param {string | URL} source
 * @returns {string}
 */
export declare function locate(source: string | URL): string;
/** @param {string} source from `locate` */
export declare function readerOf(source: string): import("../bundle.js").ReadFile;
/**
 * @param {Uint8Array} graph
 * @param {number} threads
 */
export declare function openSession(graph: Uint8Array, threads: number): Promise<ort.InferenceSession>;
/**
 * @param {(answer: Answer) => void} onAnswer
 * @param {(reason: string) => void} onEnd
 * @returns {WorkerHandle}
 */
export declare function startWorker(onAnswer: (answer: Answer) => void, onEnd: (reason: string) => void): WorkerHandle;
/**
 * @param {(message: import("./messages.js").Question) => Promise<any>} answer
 * @param {(error: unknown) => import("./messages.js").Failure} describe
 */
export declare function listen(answer: (message: import("./messages.js").Question) => Promise<any>, describe: (error: unknown) => import("./messages.js").Failure): void;
