// Node: files from folders or addresses, onnxruntime-node, worker_threads.

import { readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parentPort, Worker } from "node:worker_threads";

import { RekdEdgeError } from "../errors.js";
import { fetchReader } from "./fetch.js";

/** @typedef {import("./messages.js").WorkerHandle} WorkerHandle */
/** @typedef {import("./messages.js").Answer} Answer */

const ort = await import("onnxruntime-node").catch((error) => {
  throw new RekdEdgeError("missing", "onnxruntime-node is not installed; run: npm install onnxruntime-node", error);
});

export const { Tensor } = ort;

/**
 * A folder or an address as an absolute address.
 *
 * @param {string | URL} source
 * @returns {string}
 */
export function locate(source) {
  const address = String(source);
  const found = /^(https?|file):/.test(address) ? address : pathToFileURL(path.resolve(address)).href;
  return found.endsWith("/") ? found : `${found}/`;
}

/**
 * @param {string} source from `locate`
 * @returns {import("../bundle.js").ReadFile}
 */
export function readerOf(source) {
  if (!source.startsWith("file:")) return fetchReader(source);
  return async (name) => {
    try {
      return new Uint8Array(await readFile(new URL(name, source)));
    } catch (error) {
      const code = /** @type {NodeJS.ErrnoException} */ (error).code;
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw new RekdEdgeError("missing", `${source}${name} cannot be read (${code}); check its permissions.`, error);
    }
  };
}

/**
 * @param {Uint8Array} graph
 * @param {number} threads
 */
export async function openSession(graph, threads) {
  try {
    return await ort.InferenceSession.create(graph, {
      executionProviders: ["cpu"],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      logSeverityLevel: 4,
    });
  } catch (error) {
    throw new RekdEdgeError("schema", "model.onnx cannot be opened by onnxruntime-node; export the run again.", error);
  }
}

/**
 * @param {(answer: Answer) => void} onAnswer
 * @param {(reason: string) => void} onEnd
 * @returns {WorkerHandle}
 */
export function startWorker(onAnswer, onEnd) {
  const worker = new Worker(new URL("../worker.js", import.meta.url));
  let open = 0;
  worker.unref(); // a process may end while a bundle is open, but not while it waits for an answer
  worker.on("message", (answer) => {
    if (--open === 0) worker.unref();
    onAnswer(answer);
  });
  worker.on("error", (error) => onEnd(error.message));
  worker.on("exit", (status) => onEnd(`status ${status}`));

  return {
    post: (message) => {
      worker.postMessage(message);
      open++;
      worker.ref();
    },
    stop: () => {
      worker.removeAllListeners("exit");
      void worker.terminate();
    },
  };
}

/**
 * @param {(message: import("./messages.js").Question) => Promise<any>} answer
 * @param {(error: unknown) => import("./messages.js").Failure} describe
 */
export function listen(answer, describe) {
  const port = /** @type {import("node:worker_threads").MessagePort} */ (parentPort);
  port.on("message", async (message) => {
    const { id } = message;
    port.postMessage(await answer(message).then((value) => ({ id, value }), (error) => ({ id, error: describe(error) })));
  });
}
