declare module "dynalite" {
  import type { Server } from "node:http";

  type Options = {
    readonly path?: string;
    readonly createTableMs?: number;
    readonly deleteTableMs?: number;
    readonly updateTableMs?: number;
  };
  const dynalite: (options: Options) => Server;
  // biome-ignore lint/style/noDefaultExport: this is how the package is written
  export default dynalite;
}
