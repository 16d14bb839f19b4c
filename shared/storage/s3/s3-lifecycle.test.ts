import type { LifecycleRule } from "@aws-sdk/client-s3";
import { expect, test } from "vitest";
import { judgeLifecycle } from "./s3-lifecycle.ts";

const expiring: LifecycleRule = { ID: "x", Status: "Enabled", Expiration: { Days: 30 } };

test.each<[string, LifecycleRule, readonly string[]]>([
  ["everything expires", { ...expiring, Filter: { Prefix: "" } }, ["danger lifecycle-expires"]],
  ["an old rule without a filter", expiring, ["danger lifecycle-expires"]],
  [
    "a part of ours",
    { ...expiring, Filter: { Prefix: "lab/packs/" } },
    ["danger lifecycle-expires"],
  ],
  ["a folder around ours", { ...expiring, Prefix: "la" }, ["danger lifecycle-expires"]],
  ["another folder", { ...expiring, Filter: { Prefix: "laboratory/" } }, []],
  ["a rule that is off", { ...expiring, Status: "Disabled" }, []],
  ["tagged objects", { ...expiring, Filter: { Tag: { Key: "a", Value: "b" } } }, []],
  [
    "tagged objects of a folder",
    { ...expiring, Filter: { And: { Prefix: "lab", Tags: [{ Key: "a", Value: "b" }] } } },
    [],
  ],
  [
    "only markers without versions",
    { Status: "Enabled", Expiration: { ExpiredObjectDeleteMarker: true } },
    [],
  ],
  [
    "old versions",
    { Status: "Enabled", NoncurrentVersionExpiration: { NoncurrentDays: 1 } },
    ["warning lifecycle-old-versions"],
  ],
  [
    "archives",
    { Status: "Enabled", Transitions: [{ Days: 1, StorageClass: "DEEP_ARCHIVE" }] },
    ["danger lifecycle-archives"],
  ],
  [
    "a cheaper class",
    { Status: "Enabled", Transitions: [{ Days: 1, StorageClass: "STANDARD_IA" }] },
    ["warning lifecycle-moves"],
  ],
  [
    "unfinished uploads",
    { Status: "Enabled", AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 } },
    [],
  ],
])("a lifecycle rule for %s", (_, rule, expected) => {
  const found = judgeLifecycle([rule], "lab/");
  expect(found.map(({ severity, id }) => `${severity} ${id}`)).toEqual(expected);
  for (const { what } of found) expect(what).toContain(rule.ID ?? "without a name");
});
