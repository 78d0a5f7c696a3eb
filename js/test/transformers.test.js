// A bundle opens in transformers.js as any text classifier, with the labels of the vectors.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";

import { AutoModelForSequenceClassification, AutoTokenizer, env } from "@huggingface/transformers";

import { bundlePath, rowsOf } from "./vectors.js";

env.allowRemoteModels = false;
env.localModelPath = path.dirname(bundlePath("text-int8"));

for (const name of ["text-fp32", "text-int8"]) {
  test(`transformers.js opens ${name}`, async () => {
    assert.ok(existsSync(path.join(bundlePath(name), "config.json")));
    const tokenizer = await AutoTokenizer.from_pretrained(name);
    const model = await AutoModelForSequenceClassification.from_pretrained(name, { subfolder: "", dtype: "fp32" });
    for (const row of rowsOf("text").filter(({ name: input }) => input === "review" || input === "case" || input === "specials")) {
      const inputs = tokenizer(row.text, { truncation: true });
      const { logits } = await model(inputs);
      const values = [...logits.data];
      const label = model.config.id2label[values.indexOf(Math.max(...values))];
      assert.equal(label, row[name.endsWith("fp32") ? "run" : "int8"].label, row.name);
    }
    await model.dispose();
  });
}
