import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { matchesGlob, selectsVm } from "./policy-selection.ts";

const vm = {
  vmId: "vm-1",
  providerId: "kvm-1",
  description: { name: "web-01", tags: ["prod", "web"] },
};

describe("selection", () => {
  test.each([
    [{}, false],
    [{ vmIds: ["vm-1"] }, true],
    [{ vmIds: [] }, false],
    [{ providerIds: ["kvm-2"] }, false],
    [{ providerIds: ["kvm-2", "kvm-1"] }, true],
    [{ tags: [] }, false],
    [{ tags: ["prod"] }, true],
    [{ tags: ["prod", "db"] }, false],
    [{ namePattern: "web-*" }, true],
    [{ namePattern: "web-*", tags: ["db"] }, false],
    [{ namePattern: "WEB-*" }, false],
  ])("%j selects the VM: %s", (selection, expected) => {
    expect(selectsVm(selection, vm)).toBe(expected);
  });
});

describe("glob", () => {
  test.each([
    ["*", "", true],
    ["?", "", false],
    ["?", "ü", true],
    ["?", "😀", true],
    ["a*b*c", "axxbyyc", true],
    ["a*b*c", "axxbyy", false],
    ["*.prod", "web.prod", true],
    ["web[1]", "web1", false],
    ["web[1]", "web[1]", true],
    ["a.c", "abc", false],
  ])("%s against %s: %s", (pattern, text, expected) => {
    expect(matchesGlob(pattern, text)).toBe(expected);
  });

  test("a text matches itself, and any part of it may be a star", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), (a, b, c) => {
        const literal = (text: string) => text.replaceAll(/[*?]/g, "x");
        const [head, tail] = [literal(a), literal(c)];
        expect(matchesGlob(head, head)).toBe(true);
        expect(matchesGlob(`${head}*${tail}`, `${head}${b}${tail}`)).toBe(true);
      }),
    );
  });

  test("hostile patterns end soon", () => {
    expect(matchesGlob(`${"*a".repeat(120)}b`, "a".repeat(4000))).toBe(false);
  });
});
