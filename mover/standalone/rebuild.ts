import type { RebuildReport } from "@holdfast/shared/contracts/standalone";
import type { Session } from "@holdfast/shared/repository/session/sessions";
import { standaloneHolder, withSession } from "../hold-session.ts";
import { rebuildIndex } from "../pipeline/rebuild-index.ts";
import type { Request, StandaloneContext } from "./standalone-context.ts";

/** People hear at most this often how far it is. */
const noteMs = 5000;

export async function rebuild(
  context: StandaloneContext,
  request: Request<"repository-rebuild">,
): Promise<RebuildReport> {
  const { clock, logger } = context;
  const repository = await context.open(request);
  const startedMs = clock.now();
  let notedMs = startedMs;
  const onPacks = (packs: number): void => {
    if (clock.now() - notedMs < noteMs) return;
    notedMs = clock.now();
    context.emit({ type: "note", message: `Read what ${packs} packs hold` });
  };
  const run = async (session: Session | undefined, signal: AbortSignal) => {
    const { damagedPacks, ...report } = await rebuildIndex({
      repository,
      session,
      onPacks,
      signal,
    });
    const seconds = (clock.now() - startedMs) / 1000;
    return { ...report, damagedPacks: [...damagedPacks], seconds };
  };
  if (request.dryRun) return await run(undefined, context.signal);
  const holder = `rebuild of the index, ${standaloneHolder()}`;
  const held = { kind: "maintenance", holder, pins: [] } as const;
  return await withSession({ ...held, repository, clock, logger, signal: context.signal }, run);
}
