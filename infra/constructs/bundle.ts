import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Code } from "aws-cdk-lib/aws-lambda";
import { buildSync } from "esbuild";

/** The entry file as one ES module with all it needs, the AWS SDK included, so that the runtime's version of it does not matter. */
export function bundleFunction(options: {
  /** The repository's root, from which `entry` is named. */
  readonly root: string;
  readonly entry: string;
  /** Is emptied first. */
  readonly folder: string;
}): Code {
  const { root, entry, folder } = options;
  const file = join(root, entry);
  if (!existsSync(file)) throw new Error(`function entry ${entry} does not exist below ${root}`);
  rmSync(folder, { recursive: true, force: true });
  buildSync({
    entryPoints: [file],
    absWorkingDir: root,
    outfile: join(folder, "index.mjs"),
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    sourcemap: "linked",
    sourcesContent: false,
    minifySyntax: true,
    minifyWhitespace: true,
    charset: "utf8",
    legalComments: "none",
    // Packages in CommonJS ask for Node's modules by `require`, which an ES module does not have.
    banner: {
      js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
    },
    logLevel: "error",
  });
  return Code.fromAsset(folder);
}
