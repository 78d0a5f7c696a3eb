// The page of `rekd-edge web` in headless Chromium: the vectors' answers, live text and images, offline, accessibility.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";

import { askInPage, counting, launch, serve, skip } from "./browser.js";
import { bandOf, decoded, imagePath, manifestOf, rowsOf } from "./vectors.js";

const SAMPLE = "A superb and gripping film with a dull, clumsy end.";
const PAGE_BYTES = 5e6;
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");

describe("the page", { skip }, () => {
  let browser;
  const pages = {};

  before(async () => {
    [browser, pages.text, pages.image, pages["text-fp32"], pages["text-4bit"], pages["image-fp32"]] = await Promise.all([
      launch(),
      serve("text-int8", "--example", SAMPLE),
      serve("image-int8"),
      serve("text-fp32"),
      serve("text-4bit"),
      serve("image-fp32"),
    ]);
  });
  after(async () => {
    await browser?.close();
    for (const page of Object.values(pages)) page.stop();
  });

  /** Open a page, with everything that it says and loads. */
  async function open(address, options = {}) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    const problems = [];
    const hosts = new Set();
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    context.on("request", (request) => hosts.add(new URL(request.url()).host));
    await page.goto(address);
    await page.waitForFunction(() => !document.getElementById("about").textContent.startsWith("Loading"));
    return { context, page, problems, hosts };
  }

  for (const name of ["text-fp32", "text-int8", "text-4bit", "image-fp32", "image-int8"]) {
    const [task, precision] = name.split("-");

    test(`Chromium gives the answers of ${name}`, async () => {
      const server = precision === "int8" ? pages[task] : pages[name];
      const { context, page } = await open(server.address);
      const rows = rowsOf(task);
      const inputs = task === "text" ? rows.map((row) => row.text) : await Promise.all(rows.map((row) => decoded(row.name)));
      const { manifest, predictions, encoded } = await askInPage(page, inputs);

      const band = bandOf(manifest);
      rows.forEach((row, i) => {
        const expected = row[precision === "fp32" ? "run" : precision];
        assert.equal(predictions[i].label, expected.label, row.name);
        const mask = predictions[i].mask.flat();
        assert.equal(mask.length, expected.mask.length, row.name);
        expected.margins.forEach((margin, place) => {
          const drift = Math.abs(predictions[i].margins[place] - margin);
          assert.ok(drift <= band + 1e-6 * Math.abs(margin), `${row.name}: a margin drifts by ${drift}`);
          if (Math.abs(margin) > band) assert.equal(mask[place], expected.mask[place], row.name);
        });
        if (task === "text") {
          assert.deepEqual(encoded[i].ids, row.ids, row.name);
          assert.deepEqual(encoded[i].offsets, row.offsets, row.name);
        }
      });
      await context.close();
    });
  }

  test("text is explained as it is written, and nothing goes elsewhere", async () => {
    const { context, page, problems, hosts } = await open(pages.text.address);
    await page.waitForSelector("#words mark");
    assert.equal(await page.inputValue("#input"), SAMPLE);
    assert.equal(await page.textContent("#words"), SAMPLE);
    assert.ok((await page.locator("#words mark").allTextContents()).includes("superb"));

    await page.fill("#input", "a dull, clumsy 😀 film");
    await page.waitForFunction(() => document.querySelector("#label strong").textContent === "neg");
    assert.ok((await page.locator("#words mark").allTextContents()).includes("clumsy"));
    assert.match(await page.textContent("#share"), /of 6 tokens \(.*%\), \d+\.\d ms/);
    await page.waitForFunction(() => document.getElementById("announcement").textContent.startsWith("neg"));

    assert.deepEqual(problems, []);
    assert.deepEqual([...hosts], [new URL(pages.text.address).host]);
    await context.close();
  });

  test("an image is explained by its patches, and a file that is none is named", async () => {
    const { context, page, problems } = await open(pages.image.address);
    await page.setInputFiles("#file", imagePath("digit"));
    await page.waitForSelector("#patches:not([hidden])");
    const row = rowsOf("image").find(({ name }) => name === "digit").int8;
    assert.equal(await page.textContent("#label strong"), row.label);
    const selected = row.mask.filter(Boolean).length;
    assert.match(await page.textContent("#share"), new RegExp(`^${selected} of 64 patches`));
    assert.match(await page.getAttribute("#patches", "aria-label"), /row \d+ column \d+/);

    await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") });
    await page.waitForFunction(() => document.getElementById("problem").textContent);
    assert.match(await page.textContent("#problem"), /notes\.txt cannot be read as an image/);
    assert.deepEqual(problems, []);
    await context.close();
  });

  test("a canvas decodes within one level of Pillow, also where it is half transparent", async () => {
    const { context, page } = await open(pages.image.address);
    for (const name of ["digit", "rgba", "grey", "large"]) {
      const encoded = readFileSync(imagePath(name)).toString("base64");
      const pixels = await page.evaluate(async (given) => {
        const { modelPixels } = await import("./rekd-edge/image.js");
        const manifest = await (await fetch("./bundle/manifest.json")).json();
        const bytes = Uint8Array.from(atob(given), (character) => character.charCodeAt(0));
        const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
        const drawing = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        drawing.fillStyle = "white";
        drawing.fillRect(0, 0, bitmap.width, bitmap.height);
        drawing.drawImage(bitmap, 0, 0);
        return Array.from(modelPixels(drawing.getImageData(0, 0, bitmap.width, bitmap.height), manifest.image));
      }, encoded);
      const expected = rowsOf("image").find((row) => row.name === name).pixels;
      const largest = Math.max(...pixels.map((value, i) => Math.abs(value - expected[i])));
      assert.ok(largest <= 1, `${name}: ${largest} levels`);
    }
    await context.close();
  });

  test("the first load transfers the bundle and at most 5 MB, and the next ones work offline", async () => {
    const counter = await counting(pages.text.address);
    const { context, page } = await open(counter.address);
    await page.waitForFunction(() => document.getElementById("offline").textContent.includes("works offline"));
    await page.waitForSelector("#words mark");

    const bundle = manifestOf("text-int8").files;
    const largest = Object.values(bundle).reduce((sum, file) => sum + file.size, PAGE_BYTES);
    assert.ok(counter.bytes() > 3e6);
    assert.ok(counter.bytes() <= largest, `${counter.bytes()} bytes, at most ${largest}`);

    counter.stop();
    await context.setOffline(true);
    await page.reload();
    await page.waitForSelector("#words mark");
    await page.fill("#input", "a dull, clumsy film");
    await page.waitForFunction(() => document.querySelector("#label strong").textContent === "neg");
    await context.close();
  });

  test("the page answers while the worker computes", async () => {
    const { context, page } = await open(pages.text.address);
    const longest = await page.evaluate(async () => {
      const { Rationalizer } = await import("./rekd-edge/index.js");
      const opened = await Rationalizer.load("./bundle/");
      let last = performance.now();
      let gap = 0;
      const timer = setInterval(() => {
        gap = Math.max(gap, performance.now() - last);
        last = performance.now();
      }, 1);
      const started = performance.now();
      await opened.predict(Array.from({ length: 600 }, (_, i) => `${i} a dull film `.repeat(12)));
      clearInterval(timer);
      return { gap, took: performance.now() - started };
    });
    assert.ok(longest.took > 100, `took ${longest.took} ms`);
    assert.ok(longest.gap < longest.took / 3, `the page waited ${longest.gap} of ${longest.took} ms`);
    await context.close();
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    for (const width of [1000, 390]) {
      test(`nothing bars users: ${colorScheme}, ${width} pixels wide`, async () => {
        for (const task of ["text", "image"]) {
          const { context, page } = await open(pages[task].address, { colorScheme, viewport: { width, height: 844 } });
          if (task === "image") await page.setInputFiles("#file", imagePath("digit"));
          await page.waitForSelector("#result:not([hidden])");
          await page.addScriptTag({ content: axeSource }).catch(() => page.evaluate(axeSource));
          const { violations } = await page.evaluate(() => globalThis.axe.run());
          assert.deepEqual(violations.map(({ id, impact, nodes }) => [id, impact, nodes[0].html]), []);

          const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert.ok(wide <= 0, `${task}: ${wide} pixels too wide`);
          if (process.env.SCREENSHOTS) {
            await page.screenshot({ path: `${process.env.SCREENSHOTS}/page-${task}-${colorScheme}-${width}.png`, fullPage: true });
          }
          await context.close();
        }
      });
    }
  }

  test("the keyboard reaches everything", async () => {
    const { context, page } = await open(pages.text.address);
    const reached = [];
    for (let i = 0; i < 3; i++) {
      await page.keyboard.press("Tab");
      reached.push(await page.evaluate(() => document.activeElement?.tagName));
    }
    assert.deepEqual(reached.slice(0, 2), ["TEXTAREA", "SUMMARY"]);
    await context.close();
  });
});
