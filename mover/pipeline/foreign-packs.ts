import { Failure } from "@holdfast/shared/domain/failure";
import type { DiskRecord } from "@holdfast/shared/repository/extent-map/disk-record";
import { type LeafTable, packsOf } from "@holdfast/shared/repository/extent-map/leaf-table";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { Repository } from "@holdfast/shared/repository/repository";
import { sessionOfId } from "@holdfast/shared/repository/session/session-state";
import type { Session } from "@holdfast/shared/repository/session/sessions";

const looksInFlight = 16;

/**
 * The index is a hint: a mover that slept may have put a segment that names packs which were collected long ago. So every pack that is neither of
 * this session nor in the previous point's record must be there, and not condemned, when its disk's record is written; the session began before, so
 * no later collection removes it. Fails with `index.stale`.
 */
export async function checkForeignPacks(
  o: { readonly repository: Repository; readonly session: Session },
  table: LeafTable,
  previous: DiskRecord | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { condemned, sessionId } = o.session;
  const trusted = previous === undefined ? new Map() : packsOf(previous.leaves);
  const foreign = [...packsOf(table)].filter(
    ([id]) => sessionOfId(id) !== sessionId && !trusted.has(id),
  );
  for (let at = 0; at < foreign.length; at += looksInFlight) {
    const some = foreign.slice(at, at + looksInFlight);
    await Promise.all(
      some.map(async ([id, packId]) => {
        const isUsable =
          !condemned.packs.has(id) &&
          !condemned.compacting.has(id) &&
          (await o.repository.store.head(packName(packId), { signal })) !== undefined;
        if (isUsable) return;
        throw new Failure("index.stale", {
          message: `the repository's index names pack ${id}, which is gone or about to be removed`,
          packId: id,
        });
      }),
    );
  }
}
