/**
 * What the repository is, said in the simplest way: a map from points to bytes. A job's snapshot is known before anything is stored, so
 * that also points of which nobody was told can be judged.
 */
export type Model = {
  /** Bytes of the disk that this job backs up. */
  readonly snapshots: Map<string, Snapshot>;
  /** Roots whose commit was confirmed to a writer, by name. */
  readonly confirmed: Map<string, ModelPoint>;
  /** Roots that a collection was told to remove. */
  readonly forgotten: Set<string>;
  /** Sessions whose commit was refused: nothing of them may ever be a point. */
  readonly refused: Set<string>;
  readonly newest: (vmKey: string) => ModelPoint | undefined;
  readonly kept: () => readonly ModelPoint[];
};

export type Snapshot = { readonly vmKey: string; readonly bytes: Uint8Array };

export type ModelPoint = {
  readonly rootKey: string;
  readonly pointId: string;
  readonly vmKey: string;
  readonly jobId: string;
};

export function createModel(): Model {
  const confirmed = new Map<string, ModelPoint>();
  const forgotten = new Set<string>();
  const kept = (): readonly ModelPoint[] =>
    [...confirmed.values()].filter(({ rootKey }) => !forgotten.has(rootKey));
  return {
    snapshots: new Map(),
    confirmed,
    forgotten,
    refused: new Set(),
    kept,
    newest: (vmKey) =>
      kept()
        .filter((point) => point.vmKey === vmKey)
        .sort((left, right) => (left.pointId < right.pointId ? -1 : 1))
        .at(-1),
  };
}
