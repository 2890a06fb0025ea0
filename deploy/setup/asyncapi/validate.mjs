// Validate an AsyncAPI document with the parser that the AsyncAPI project publishes: `node validate.mjs FILE`.
// Prints what is wrong with it, a line each, and exits with 1 if anything is.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR = 0;
const WARNING = 1;

const { diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const wrong = diagnostics.filter(({ severity }) => severity === ERROR || severity === WARNING);
for (const { code, message, path } of wrong) console.log(`${path.join(".") || "document"}: ${message} (${code})`);
process.exitCode = wrong.length ? 1 : 0;
