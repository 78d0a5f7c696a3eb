// The page of `rekd-edge web`: one bundle, opened in a worker, asked as the user writes or drops an image.

import { Rationalizer } from "./rekd-edge/index.js";

/** @param {string} id */
const $ = (id) => /** @type {any} */ (document.getElementById(id));
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const LISTED = 5; // labels, the likeliest first

/** @type {Rationalizer} */
let rationalizer;

start().catch(report);

async function start() {
  keepOffline();
  rationalizer = await Rationalizer.load("./bundle/");
  const { manifest } = rationalizer;
  const isText = manifest.task === "text-classification";
  await rationalizer.predict(isText ? "" : { data: new Uint8Array(3), width: 1, height: 1 }); // the first one is slow
  describe(manifest, isText);

  if (isText) readText();
  else readImages();
}

/** Say what is open. */
function describe(manifest, isText) {
  const { labels, precision = "fp32", method = "", files } = manifest;
  const size = Object.values(files).reduce((sum, file) => sum + file.size, 0);
  const named = labels.length > 6 ? `${labels.length} labels` : labels.join(", ");
  const selects = method === "cls" ? "decides from all" : "selects a few, and decides from those alone";
  $("about").textContent = isText
    ? `A text classifier: ${named}. Of the words, it ${selects}.`
    : `An image classifier: ${named}. Of the patches, it ${selects}.`;

  const facts = {
    Labels: labels.join(", "),
    Method: method,
    Precision: precision,
    "Size of the bundle": `${(size / 1e6).toFixed(1)} MB`,
    "Accuracy on dev data": manifest.metrics?.accuracy === undefined ? "" : percent.format(manifest.metrics.accuracy),
    "Longest text": isText ? `${manifest.text.max_length} tokens` : "",
    "SHA-256 of the graph": files["model.onnx"].sha256,
  };
  for (const [name, value] of Object.entries(facts)) {
    if (value) $("facts").append(element("dt", name), element("dd", value));
  }
}

// Text ---------------------------------------------------------------------------------------------------------------

function readText() {
  const input = $("input");
  $("text").hidden = false;
  $("patches").hidden = true;

  let busy = false;
  let answered;
  async function answer() {
    if (busy || input.value === answered) return;
    busy = true;
    answered = input.value;
    try {
      const [prediction, milliseconds] = await timed(() => rationalizer.predict(answered));
      showText(answered, prediction, milliseconds);
    } catch (error) {
      report(error);
    }
    busy = false;
    void answer(); // what was typed meanwhile
  }

  input.addEventListener("input", answer);
  input.value ||= document.documentElement.dataset.example ?? "";
  void answer();
}

function showText(text, prediction, milliseconds) {
  const words = $("words");
  words.replaceChildren();
  let at = 0;
  for (const span of prediction.rationale) {
    words.append(text.slice(at, span.start), element("mark", span.text));
    at = span.end;
  }
  words.append(text.slice(at));

  const { mask, truncated } = prediction;
  const selected = mask.filter(Boolean).length;
  const cut = truncated ? " The end of the text was not read." : "";
  showAnswer(prediction, `${selected} of ${mask.length} tokens (${percent.format(prediction.rationale_ratio)}), ${
    milliseconds.toFixed(1)
  } ms.${cut}`);
  announce(`${prediction.label}, ${percent.format(prediction.scores[prediction.label])}. Rationale: ${
    prediction.rationale.map((span) => span.text).join(", ") || "none"
  }.`);
}

// Images -------------------------------------------------------------------------------------------------------------

function readImages() {
  const [drop, file] = [$("drop"), $("file")];
  $("image").hidden = false;
  $("words").hidden = true;

  file.addEventListener("change", () => file.files[0] && showImage(file.files[0]));
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [dropped] = event.dataTransfer.files;
    if (dropped) void showImage(dropped);
  });
  document.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData?.files ?? [];
    if (pasted) void showImage(pasted);
  });
}

async function showImage(file) {
  try {
    const bitmap = await createImageBitmap(file).catch((error) => {
      throw new Error(`${file.name || "This file"} cannot be read as an image; give a JPEG or PNG.`, { cause: error });
    });
    const pixels = pixelsOf(bitmap);
    const [prediction, milliseconds] = await timed(() => rationalizer.predict(pixels));
    drawPatches(bitmap, prediction);

    const patches = prediction.mask.flat();
    showAnswer(prediction, `${patches.filter(Boolean).length} of ${patches.length} patches (${
      percent.format(prediction.rationale_ratio)
    }), ${milliseconds.toFixed(1)} ms.`);
    announce(`${prediction.label}, ${percent.format(prediction.scores[prediction.label])}.`);
  } catch (error) {
    report(error);
  }
}

/** The pixels of a bitmap, transparency on white. */
function pixelsOf(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** The image as the model sees it, with everything that was not selected in the dark. */
function drawPatches(bitmap, { mask }) {
  const canvas = $("patches");
  const context = canvas.getContext("2d");
  const [rows, columns] = [mask.length, mask[0].length];
  canvas.hidden = false;
  canvas.height = Math.round((canvas.width * rows) / columns);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);

  const [width, height] = [canvas.width / columns, canvas.height / rows];
  const chosen = [];
  mask.forEach((row, y) =>
    row.forEach((selected, x) => {
      if (selected) chosen.push(`row ${y + 1} column ${x + 1}`);
      context.fillStyle = "rgba(18, 22, 27, 0.78)";
      if (!selected) context.fillRect(x * width, y * height, width, height);
    }),
  );
  context.strokeStyle = "#ffb000";
  context.lineWidth = 3;
  mask.forEach((row, y) =>
    row.forEach((selected, x) => {
      if (selected) context.strokeRect(x * width + 1.5, y * height + 1.5, width - 3, height - 3);
    }),
  );
  const named = chosen.length > 12 ? `${chosen.slice(0, 12).join(", ")} and ${chosen.length - 12} more` : chosen.join(", ");
  canvas.setAttribute("aria-label", `The image with the selected patches lit: ${named}.`);
}

// Both ---------------------------------------------------------------------------------------------------------------

function showAnswer(prediction, share) {
  const { label, scores } = prediction;
  $("problem").textContent = "";
  $("result").hidden = false;
  $("label").querySelector("strong").textContent = label;
  $("label").querySelector("span").textContent = percent.format(scores[label]);
  $("share").textContent = share;

  const likeliest = Object.entries(scores).sort(([, a], [, b]) => b - a).slice(0, LISTED);
  $("scores").replaceChildren(
    ...likeliest.flatMap(([name, score]) => {
      const meter = /** @type {HTMLMeterElement} */ (element("meter", ""));
      meter.value = score;
      meter.setAttribute("aria-label", `Probability of ${name}`);
      const entry = element("dd", "");
      entry.append(meter, element("span", percent.format(score)));
      return [element("dt", name), entry];
    }),
  );
}

let speaking;
/** Tell screen readers once the writer rests. */
function announce(words) {
  clearTimeout(speaking);
  speaking = setTimeout(() => ($("announcement").textContent = words), 800);
}

function report(error) {
  $("problem").textContent = error instanceof Error ? error.message : String(error);
  if (!rationalizer) $("about").textContent = "The model could not be opened.";
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

async function timed(work) {
  const started = performance.now();
  const value = await work();
  return [value, performance.now() - started];
}

function keepOffline() {
  const { serviceWorker } = navigator;
  const why = "It can be used offline and installed where it is served from https or localhost.";
  if (!serviceWorker) {
    $("offline").textContent = why;
    return;
  }
  serviceWorker
    .register("service-worker.js")
    .then(() => serviceWorker.ready)
    .then(() => ($("offline").textContent = "It now works offline too."))
    .catch(() => ($("offline").textContent = why));
}
