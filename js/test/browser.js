// A headless Chromium, and the page of a bundle on loopback, as `rekd-edge web BUNDLE --serve` opens it.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer, request } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { bundlePath } from "./vectors.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const commands = [process.env.REKD_EDGE, `${root}.venv/bin/rekd-edge`];
const executablePath = browsers.find((path) => path && existsSync(path));
const command = commands.find((path) => path && existsSync(path));

/** Why the page cannot be tested here, or false. */
export const skip =
  (!executablePath && "needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it") ||
  (!command && "needs rekd-edge: pip install -e ., or REKD_EDGE=/path/to/it");

export function launch() {
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
}

/**
 * Serve the page of a bundle.
 *
 * @param {string} name of one of the vectors', or a folder
 * @param {string[]} more arguments
 * @returns {Promise<{ address: string, stop: () => void }>}
 */
export async function serve(name, ...more) {
  const child = spawn(/** @type {string} */ (command), ["web", name.includes("/") ? name : bundlePath(name), "--serve", "--json", ...more], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  process.once("exit", () => child.kill("SIGTERM"));
  let document = "";
  for await (const line of createInterface({ input: child.stdout })) {
    document += line;
    if (line === "}") break;
  }
  return { address: JSON.parse(document).address, stop: () => child.kill("SIGTERM") };
}

/**
 * A server that passes everything on and counts what it answers, headers included.
 *
 * @param {string} address
 * @returns {Promise<{ address: string, bytes: () => number, stop: () => void }>}
 */
export async function counting(address) {
  let bytes = 0;
  const server = createServer((asked, answered) => {
    const { url, method, headers } = asked;
    request(new URL(url ?? "/", address), { method, headers }, (answer) => {
      bytes += answer.rawHeaders.join("").length;
      answer.on("data", (part) => (bytes += part.length));
      answered.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(answered);
    }).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { address: `http://127.0.0.1:${port}/`, bytes: () => bytes, stop };
}

/**
 * What the package answers in a page of ours, opened by itself: texts, or images as `{ data, width, height }`.
 *
 * @param {import("playwright-core").Page} page
 * @param {any[]} inputs
 */
export async function askInPage(page, inputs) {
  const sent = inputs.map((each) => (typeof each === "string" ? each : { ...each, data: Buffer.from(each.data).toString("base64") }));
  return page.evaluate(async (given) => {
    const { Rationalizer } = await import("./rekd-edge/index.js");
    const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const values = given.map((each) => (typeof each === "string" ? each : { ...each, data: bytes(each.data) }));
    const opened = await Rationalizer.load("./bundle/");
    const predictions = await opened.predict(values, { batchSize: 1 });
    return { manifest: opened.manifest, predictions, encoded: typeof given[0] === "string" ? await opened.encode(given) : [] };
  }, sent);
}
