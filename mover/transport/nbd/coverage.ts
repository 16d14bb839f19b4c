/**
 * Which bytes of one read have been answered. Every byte must be answered exactly once; chunks come in any order,
 * nearly always ascending, so the common case is one growing run.
 */
export type Coverage = {
  /** False if the range leaves the whole, overlaps what was there, or makes too many separate runs. */
  add(start: number, end: number): boolean;
  isComplete(): boolean;
};

/** Bounds the memory that a hostile server can make us spend on scattered chunks. */
const runsMax = 4096;

export function createCoverage(lengthBytes: number): Coverage {
  /** Sorted, disjoint, not touching. */
  const runs: { start: number; end: number }[] = [];
  return {
    add(start, end) {
      if (!(start >= 0 && end > start && end <= lengthBytes)) return false;
      let low = 0;
      let high = runs.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((runs[middle]?.start ?? 0) < start) low = middle + 1;
        else high = middle;
      }
      const before = runs[low - 1];
      const after = runs[low];
      if (before !== undefined && before.end > start) return false;
      if (after !== undefined && after.start < end) return false;
      const touchesBefore = before !== undefined && before.end === start;
      const touchesAfter = after !== undefined && after.start === end;
      if (touchesBefore && touchesAfter) {
        before.end = after.end;
        runs.splice(low, 1);
      } else if (touchesBefore) before.end = end;
      else if (touchesAfter) after.start = start;
      else {
        if (runs.length >= runsMax) return false;
        runs.splice(low, 0, { start, end });
      }
      return true;
    },
    isComplete: () => runs.length === 1 && runs[0]?.start === 0 && runs[0].end === lengthBytes,
  };
}
