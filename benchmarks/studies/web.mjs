// Run ONNX files in onnxruntime-web (WebAssembly, one thread) under Node, for web.py.
//   node web.mjs MODULES TEXTS ROUNDS FILE ...
// TEXTS is a JSON list of {input: [integers]}. The output has one JSON line per file: logits of every
// text, and seconds of each text by round. The files take turns.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, texts, rounds, ...files] = process.argv.slice(2);
const ort = await import(pathToFileURL(join(modules, "onnxruntime-web", "dist", "ort.node.min.mjs")));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

const items = JSON.parse(readFileSync(texts, "utf8")).map((item) =>
  Object.fromEntries(Object.entries(item).map(([name, row]) => [name, new ort.Tensor("int64", BigInt64Array.from(row, BigInt), [1, row.length])])),
);
const sessions = await Promise.all(files.map((file) => ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"] })));
const made = files.map(() => ({ logits: [], seconds: [] }));
for (let round = 0; round < Number(rounds); round++) {
  made.forEach((file) => file.seconds.push([]));
  for (const item of items) {
    for (const [i, session] of sessions.entries()) {
      const feeds = Object.fromEntries(session.inputNames.map((name) => [name, item[name]]));
      const start = performance.now();
      const { logits } = await session.run(feeds);
      made[i].seconds[round].push((performance.now() - start) / 1000);
      if (round === 0) made[i].logits.push(Array.from(logits.data));
    }
  }
}
made.forEach((file) => console.log(JSON.stringify(file)));
