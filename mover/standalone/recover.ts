import { openObjectStore } from "@holdfast/shared/storage/open-object-store";
import { hiddenObjects, recoverObject } from "@holdfast/shared/storage/recover-versions";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** Brings the first versions of overwritten and deleted objects back on top, in a bucket that keeps versions. */
export async function recover(
  context: StandaloneContext,
  request: Request<"repository-recover">,
): Promise<unknown> {
  const { signal, logger } = context;
  // Its own config and keys may be hidden, too: the repository is not opened.
  const supports = { conditionalPut: false, versioned: true };
  const store = await openObjectStore(request.url, { supports });
  const hidden: { readonly key: string; readonly why: "overwritten" | "deleted" }[] = [];
  let recovered = 0;
  const ignore = (key: string): boolean => key.startsWith("probe/");
  for await (const object of hiddenObjects(store, { ignore, signal })) {
    hidden.push({ key: object.key, why: object.why });
    if (request.dryRun) continue;
    await recoverObject(store, object, { signal });
    logger.info("object recovered", { key: object.key, why: object.why });
    recovered += 1;
  }
  return { hidden, recovered };
}
