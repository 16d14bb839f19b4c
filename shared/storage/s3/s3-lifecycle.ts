import type { LifecycleRule } from "@aws-sdk/client-s3";
import { danger, type Finding, warning } from "../finding.ts";

/** Storage classes whose objects cannot be read at once. */
const archiveClasses: ReadonlySet<string> = new Set(["GLACIER", "DEEP_ARCHIVE"]);

export function isArchived(storageClass: string | undefined): boolean {
  return storageClass !== undefined && archiveClasses.has(storageClass);
}

/** What a bucket's lifecycle rules would do to objects below `folder`. They remove without asking who needs the object. */
export function judgeLifecycle(rules: readonly LifecycleRule[], folder: string): Finding[] {
  return rules
    .filter((rule) => rule.Status === "Enabled" && concerns(rule, folder))
    .flatMap((rule) => judgeRule(rule));
}

function judgeRule(rule: LifecycleRule): Finding[] {
  const name = rule.ID === undefined || rule.ID === "" ? "without a name" : JSON.stringify(rule.ID);
  const remedy = "Remove the rule, or limit it to a prefix that holds no repository.";
  const found: Finding[] = [];
  const { Days: days, Date: date } = rule.Expiration ?? {};
  if (days !== undefined || date !== undefined) {
    const when = days === undefined ? `on ${date?.toISOString()}` : `after ${days} days`;
    const what = `the bucket's lifecycle rule ${name} removes objects of the repository ${when}`;
    found.push(danger("lifecycle-expires", what, remedy));
  }
  if (rule.NoncurrentVersionExpiration !== undefined) {
    const what = `the bucket's lifecycle rule ${name} removes older versions: who overwrites an object destroys it then, unless it is locked`;
    found.push(warning("lifecycle-old-versions", what, remedy));
  }
  for (const { StorageClass: storageClass, Days: after } of rule.Transitions ?? []) {
    const what = `the bucket's lifecycle rule ${name} moves objects to ${storageClass} after ${after ?? 0} days`;
    found.push(
      isArchived(storageClass)
        ? danger("lifecycle-archives", `${what}; they cannot be read from there at once`, remedy)
        : warning("lifecycle-moves", `${what}; mind the price of reads and of early removal`, ""),
    );
  }
  return found;
}

/** Rules for tags concern nothing of ours: objects of a repository have none. */
function concerns({ Filter: filter, Prefix: old }: LifecycleRule, folder: string): boolean {
  if (filter?.Tag !== undefined || (filter?.And?.Tags ?? []).length > 0) return false;
  const prefix = filter?.Prefix ?? filter?.And?.Prefix ?? old ?? "";
  return prefix.startsWith(folder) || folder.startsWith(prefix);
}
