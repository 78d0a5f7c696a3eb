// Tokenise lines of JSON: each `{ tokenizer, max_length, texts }` becomes one line a text, `[ids, offsets, truncated]`.
// For tests that hold the answers against another library's.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { TextTokenizer } from "../src/text.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { tokenizer, max_length: maxLength, texts } = JSON.parse(line);
  const ours = new TextTokenizer(JSON.parse(readFileSync(tokenizer, "utf-8")), maxLength);
  const lines = texts.map((/** @type {string} */ text) => {
    const { ids, offsets, truncated } = ours.encode(text);
    return JSON.stringify([ids, offsets, truncated]);
  });
  process.stdout.write(`${lines.join("\n")}\n`);
}
