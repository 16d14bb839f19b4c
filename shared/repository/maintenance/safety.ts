/**
 * Every age, margin, share and limit that garbage collection decides by, each with its reason. None of them guards data: that is done by the
 * orders of docs/decisions/0005. They bound what a mistake of an operator or a wrong clock may cost, and what a run may take.
 */

/**
 * A run that would remove more than this share of the stored bytes, or of the points, stops and asks. Retention in use takes some
 * percent at a time; half at once is a wrong policy, a wrong bucket, or somebody who wants to do harm.
 */
export const removedShareMax = 0.5;

/** Further than this from the store's own time, the clock is wrong: what a wrong clock decides may end jobs that work well. */
export const clockDifferenceMsMax = 5 * 60_000;

/**
 * When silence was seen by another collector, both clocks may differ from the store's by `clockDifferenceMsMax`, in opposite directions.
 */
export const silenceMarginMs = 2 * clockDifferenceMsMax;

/** A collector that says nothing for this long is taken for dead. It renews far more often; one that is fenced too early stops and loses nothing. */
export const collectorSilenceSeconds = 900;
export const collectorRenewMs = 60_000;

/** Looks at the open sessions while they are waited for: two listings a minute cost next to nothing. */
export const waitStepMs = 30_000;

/** Of two collectors that start in the same moment, one yields at once; the other looks this often whether it has. */
export const yieldLooks = 5;
export const yieldStepMs = 2000;

/** Reads of roots and disk records in flight. S3 takes thousands; a NAS is busy with this. */
export const readsInFlight = 16;
/** Disk records may have some dozen MiB: so many stored bytes of them are in memory at a time, or one. */
export const recordBytesInFlight = 32 * 1024 * 1024;

/** Names in one call of `remove`: S3's own limit. */
export const removeBatch = 1000;

/**
 * Packs and other objects that one collection takes. Movers hold the whole list in memory while it is there (some 100 bytes a
 * name); what is left goes in the next run.
 */
export const condemnedMax = 250_000;

/** Objects that should be there and are not are looked up one by one, up to this many: enough to know that a listing cannot be trusted. */
export const missingLooksMax = 1000;

/** Of these a report shows the largest. */
export const largestShown = 20;

/** A pack of which less than this share is needed is worth to be compacted: moving costs less than keeping. */
export const halfEmptyShare = 0.5;

/** Packs whose needed records are known at a time, some 10 KiB each, and those that were moved into them; 256 GiB of packs. */
export const compactBatch = 16_384;

/** Readers follow 16 moves: what was moved this often stays where it is. */
export const movesMax = 12;

/** Chunks of one index segment that a compaction writes: some MiB. */
export const movedIndexChunks = 100_000;

/** Objects of the index that are in memory at a time while it is written anew: a merged one has some dozen MiB. */
export const indexObjectsInFlight = 2;
/** Calls that remove a batch each. */
export const removalsInFlight = 4;

/** What a probe left under `probe/` goes when an earlier collection saw it at least this long ago: probes take a minute. */
export const probeAgeMsMin = 3_600_000;

/**
 * A root whose session's objects are gone stays this long after a collection saw it first. Its point may be restored only by people: they have to
 * read the alarm of a nightly job, be back from a holiday, and decide. It guards against others than us, so it is time that ends it.
 */
export const unexplainedRootMs = 14 * 24 * 3_600_000;

/** Rounds of one run: sessions that were fenced while it waited leave garbage, which the next round takes. */
export const roundsMax = 3;
