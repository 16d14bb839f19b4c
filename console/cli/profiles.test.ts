import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { createProfiles, stateFolder } from "./profiles.ts";
import { createTemporaryFolder } from "./testing.ts";

const local = {
  endpoint: "http://127.0.0.1:1",
  tokenFile: "/t",
  passphraseFile: "/p",
  state: "/s",
};

test("a profile is given back as it was put, beside the others, readable by its owner only", async () => {
  await using folder = await createTemporaryFolder();
  const profiles = createProfiles({ XDG_CONFIG_HOME: folder.path });
  expect(await profiles.get("local")).toBeUndefined();
  await profiles.put("local", local);
  await profiles.put("site", { endpoint: "https://holdfast.example.org", tokenFile: "/u" });
  expect(await profiles.get("local")).toEqual(local);
  expect(await profiles.get("site")).toEqual({
    endpoint: "https://holdfast.example.org",
    tokenFile: "/u",
  });
  expect(statSync(profiles.path).mode & 0o077).toBe(0);
});

test.each([
  ["no JSON", "{"],
  ["no profiles", "{}"],
  ["a profile without an endpoint", '{"profiles":{"local":{"tokenFile":"/t"}}}'],
  ["a token file that is no text", '{"profiles":{"local":{"endpoint":"e","tokenFile":3}}}'],
])("a configuration file with %s is refused, not replaced", async (_, text) => {
  await using folder = await createTemporaryFolder();
  const profiles = createProfiles({ XDG_CONFIG_HOME: folder.path });
  mkdirSync(dirname(profiles.path), { recursive: true });
  writeFileSync(profiles.path, text);
  await expect(profiles.get("local")).rejects.toMatchObject({ code: "input.invalid" });
  await expect(profiles.put("other", local)).rejects.toMatchObject({ code: "input.invalid" });
});

test("state lies below XDG_DATA_HOME, else below the home folder", () => {
  expect(stateFolder({ XDG_DATA_HOME: "/data", HOME: "/home/u" })).toBe("/data/holdfast");
  expect(stateFolder({ HOME: "/home/u" })).toBe("/home/u/.local/share/holdfast");
});
