// What Node or headless Chromium answers to tests/vectors, as one JSON document: `{ bundle: [answers] }`.
//
//     node scripts/vectors.js [node | chromium]

import { Rationalizer } from "../src/index.js";
import { askInPage, launch, serve, skip } from "../test/browser.js";
import { bundlePath, decoded, rowsOf } from "../test/vectors.js";

const BUNDLES = ["image-fp32", "image-int8", "text-4bit", "text-fp32", "text-int8"];
const [, , where = "node"] = process.argv;

/** @param {string} name of a bundle */
async function inputsOf(name) {
  const [task] = name.split("-");
  const rows = rowsOf(task);
  return task === "text" ? rows.map((row) => row.text) : Promise.all(rows.map((row) => decoded(row.name)));
}

/** The fields that are compared. */
function answers({ predictions, encoded }) {
  return predictions.map(({ mask, margins, label }, i) => ({ mask: mask.flat(), margins, label, ...encoded[i] }));
}

/** @param {string} name */
async function inNode(name) {
  const rationalizer = await Rationalizer.load(bundlePath(name));
  const inputs = await inputsOf(name);
  const predictions = await rationalizer.predict(inputs, { batchSize: 1 });
  const encoded = name.startsWith("text") ? await rationalizer.encode(inputs) : [];
  rationalizer.close();
  return answers({ predictions, encoded });
}

/** @param {string} name */
async function inChromium(name) {
  const [browser, server] = await Promise.all([launch(), serve(name)]);
  const page = await browser.newPage();
  await page.goto(server.address);
  const found = answers(await askInPage(page, await inputsOf(name)));
  await browser.close();
  server.stop();
  return found;
}

if (where === "chromium" && skip) throw new Error(skip);
const found = {};
for (const name of BUNDLES) found[name] = await (where === "chromium" ? inChromium : inNode)(name);
process.stdout.write(JSON.stringify(found));
