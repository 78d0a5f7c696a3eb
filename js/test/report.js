// What a headless Chromium sees of a page that `rekd-edge report` wrote: node test/report.js PAGE.html [FOLDER for screenshots]

import path from "node:path";
import { pathToFileURL } from "node:url";

import { launch } from "./browser.js";

const [file, pictures] = process.argv.slice(2);
const address = pathToFileURL(path.resolve(file)).href;
const browser = await launch();

/** Open the page in a window of that width, and what was requested and said on the way. */
async function open(width, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
  const page = await context.newPage();
  const requests = [];
  const errors = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(address);
  if (pictures) await page.screenshot({ path: path.join(pictures, `${colorScheme}-${width}.png`), fullPage: true });
  return { page, requests, errors };
}

const visible = (page) => page.locator(".card:visible").count();
const ground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

try {
  const wide = await open(1200, "light");
  const shown = { all: await visible(wide.page) };
  const boxes = wide.page.locator("fieldset input");
  for (const box of await boxes.all()) await box.uncheck();
  shown.none = await visible(wide.page);
  for (const box of await boxes.all()) {
    const kind = await box.inputValue();
    await box.check();
    shown[kind] = await visible(wide.page);
    shown[`of ${kind}`] = await wide.page.locator(".card").evaluateAll(
      (cards, wanted) => cards.filter((card) => card.dataset.kinds.split("|").includes(wanted)).length,
      kind,
    );
    await box.uncheck();
  }

  const narrow = await open(390, "light");
  const dark = await open(390, "dark");
  const widths = await narrow.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  const others = [wide, narrow, dark].flatMap(({ requests }) => requests).filter((url) => url !== address && !url.startsWith("data:"));

  console.log(
    JSON.stringify({
      shown,
      widths,
      grounds: [await ground(narrow.page), await ground(dark.page)],
      requests: others,
      errors: [wide, narrow, dark].flatMap(({ errors }) => errors),
    }),
  );
} finally {
  await browser.close();
}
