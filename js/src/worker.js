// The thread that computes: one engine, asked by messages. See rationalizer.js for the other side.

import { listen, readerOf } from "#platform";

import { Engine } from "./engine.js";
import { asOurs } from "./errors.js";

/** @type {Engine | undefined} */
let engine;

listen(async ({ method, args }) => {
  if (method === "open") {
    const [source, options] = args;
    engine = await Engine.open(readerOf(source), source, options);
    return engine.manifest;
  }
  const open = /** @type {Engine} */ (engine);
  return method === "encode" ? open.encode(args[0]) : open.predict(args[0], args[1]);
}, (error) => {
  const { code, message } = asOurs(error, "The prediction failed");
  return { code, message };
});
