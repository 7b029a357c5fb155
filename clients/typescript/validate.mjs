// Holds the committed AsyncAPI document against the JSON Schema of AsyncAPI 3.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import Ajv from "ajv";
import addFormats from "ajv-formats";

const require = createRequire(import.meta.url);
const schema = require("@asyncapi/specs/schemas/3.0.0-without-$id.json");
const path = process.argv[2] ?? new URL("../../docs/asyncapi.json", import.meta.url);
const document = JSON.parse(await readFile(path, "utf8"));

const ajv = new Ajv({ allErrors: true, strict: false, unicodeRegExp: false });
addFormats(ajv);
const validate = ajv.compile(schema);
if (!validate(document)) {
  for (const error of validate.errors) {
    console.error(`${error.instancePath || "/"}: ${error.message}`);
  }
  process.exit(1);
}
console.log("docs/asyncapi.json is AsyncAPI 3.0.0");
