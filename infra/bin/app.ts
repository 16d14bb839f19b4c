/**
 * The CDK app: `cdk synth`, `cdk deploy`. Needs neither AWS credentials nor Docker to synthesise. What differs between
 * installations is the context key `holdfast`, see ../installation.ts.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { App } from "aws-cdk-lib";
import { addStacks } from "../app-stacks.ts";
import { bundleFunction } from "../constructs/bundle.ts";
import { readDefinition } from "../constructs/job-state-machine.ts";
import { Installation } from "../installation.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const app = new App();
const context: unknown = app.node.tryGetContext("holdfast") ?? {};
const installation = Installation.parse(
  typeof context === "string" ? JSON.parse(context) : context,
);
addStacks(app, {
  installation,
  bundle: ({ name, entry }) =>
    bundleFunction({ root, entry, folder: join(app.outdir, "functions", name) }),
  definitionOf: (kind) => readDefinition(root, kind),
});
app.synth();
