/** What every hunt must have met: each fault, and each way out of one. */
export const faultNames = [
  "fault: crash",
  "fault: doubled in a listing",
  "fault: fail before effect",
  "fault: flipped bit",
  "fault: killed",
  "fault: late effect",
  "fault: missing in a listing",
  "fault: outage of hours",
  "fault: refused",
  "fault: refused after it was stored",
  "fault: removal stops half way",
  "fault: reply lost",
  "fault: short answer",
  "fault: sleep",
  "fault: sleep of days",
  "fault: slow",
  "fault: stale read",
] as const;

export const wayNames = [
  "way: adopted",
  "way: collection continued by another",
  "way: collection done",
  "way: collection waiting",
  "way: commit refused",
  "way: committed",
  "way: full",
  "way: incremental",
  "way: index without what is removed",
  "way: index was stale",
  "way: job continued by another",
  "way: job given up",
  "way: reprieved",
  "way: restored",
  "way: resumed from a checkpoint",
  "way: session fenced",
  "way: verified",
] as const;

/** Of a thousand seeds; smaller hunts are asked for less, and each way at least once in all of a thousand. */
const faultsPerThousandSeeds = 100;
/** What is rarer by its rates: three in ten seeds have outages, and those about one in three histories of 60 operations; short answers 77 in 1000 seeds. */
const rarePerThousandSeeds = new Map([
  ["fault: outage of hours", 30],
  ["fault: short answer", 50],
]);

export function missedIn(counts: ReadonlyMap<string, number>, seeds: number): readonly string[] {
  const share = Math.min(1, seeds / 1000);
  const leastOf = (name: string): number =>
    Math.floor(share * (rarePerThousandSeeds.get(name) ?? faultsPerThousandSeeds));
  const isFewSeeds = share < 0.2;
  return [
    ...faultNames.filter((name) => (counts.get(name) ?? 0) < leastOf(name)),
    ...wayNames.filter((name) => !isFewSeeds && (counts.get(name) ?? 0) === 0),
  ];
}
