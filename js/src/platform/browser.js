// The browser: files by fetch, onnxruntime-web's WASM build, a module worker.

import * as ort from "onnxruntime-web/wasm";

import { RekdEdgeError } from "../errors.js";
import { fetchReader } from "./fetch.js";

/** @typedef {import("./messages.js").WorkerHandle} WorkerHandle */
/** @typedef {import("./messages.js").Answer} Answer */

export const { Tensor } = ort;

/**
 * An address as an absolute one, a folder's.
 *
 * @param {string | URL} source
 * @returns {string}
 */
export function locate(source) {
  const address = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href;
  return address.endsWith("/") ? address : `${address}/`;
}

/** @param {string} source from `locate` */
export function readerOf(source) {
  return fetchReader(source);
}

/**
 * @param {Uint8Array} graph
 * @param {number} threads
 */
export async function openSession(graph, threads) {
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1;
  try {
    return await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], logSeverityLevel: 4 });
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new RekdEdgeError("schema", `model.onnx cannot be opened by onnxruntime-web (${reason}).`, error);
  }
}

/**
 * @param {(answer: Answer) => void} onAnswer
 * @param {(reason: string) => void} onEnd
 * @returns {WorkerHandle}
 */
export function startWorker(onAnswer, onEnd) {
  const worker = new Worker(new URL("../worker.js", import.meta.url), { type: "module" });
  worker.onmessage = (event) => onAnswer(event.data);
  worker.onerror = (event) => onEnd(event.message || "its script could not be loaded");
  return { post: (message) => worker.postMessage(message), stop: () => worker.terminate() };
}

/**
 * @param {(message: import("./messages.js").Question) => Promise<any>} answer
 * @param {(error: unknown) => import("./messages.js").Failure} describe
 */
export function listen(answer, describe) {
  globalThis.onmessage = async (event) => {
    const { id } = event.data;
    const done = await answer(event.data).then((value) => ({ id, value }), (error) => ({ id, error: describe(error) }));
    globalThis.postMessage(done);
  };
}
