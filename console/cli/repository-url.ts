import { resolve } from "node:path";

/** A directory is made absolute: the mover may have another working directory. */
export function repositoryUrl(text: string): string {
  return /^[a-z][a-z0-9+.-]*:\/\//.test(text) ? text : resolve(text);
}
