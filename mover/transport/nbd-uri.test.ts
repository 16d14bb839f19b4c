import { expect, test } from "vitest";
import { isNbdUri, parseNbdUri } from "./nbd-uri.ts";

const tcp = (host: string, port: number) => ({ kind: "tcp", host, port });

test.each([
  ["nbd://host/disk", tcp("host", 10_809), "disk"],
  ["nbd://host", tcp("host", 10_809), ""],
  ["nbd://host:1/", tcp("host", 1), ""],
  ["nbd://10.0.0.1:10810/a%20b/c", tcp("10.0.0.1", 10_810), "a b/c"],
  ["nbd://[fe80::1]:99/x", tcp("fe80::1", 99), "x"],
  ["nbds://host/disk", { ...tcp("host", 10_809), tls: {} }, "disk"],
  ["nbd+unix:///vda?socket=/run/x%20y.sock", { kind: "unix", path: "/run/x y.sock" }, "vda"],
  ["nbd+unix://?socket=/s", { kind: "unix", path: "/s" }, ""],
])("%s is understood", (text, address, exportName) => {
  expect(isNbdUri(text)).toBe(true);
  expect(parseNbdUri(text)).toEqual({ address, exportName });
});

test.each([
  "nbd:",
  "nbd:host:10809",
  "nbd://",
  "nbd://host:0/x",
  "nbd://host:65536/x",
  "nbd://user@host/x",
  "nbd://host/%zz",
  "nbd://host/x?tls-psk-file=/etc/x",
  "nbd://host/x?socket=/x",
  "nbd+unix:///x",
  "nbd+unix:///x?socket=",
  "nbd+unix:///x?socket=/s&more=1",
  "nbd+unix://host/x?socket=/s",
  "nbds+unix:///x?socket=/s",
])("%s is refused", (text) => {
  expect(() => parseNbdUri(text)).toThrow(expect.objectContaining({ code: "input.invalid" }));
});

test("paths are no addresses", () => {
  for (const path of ["/nbd:/x", "./nbd://x", "disk.raw", "nbd", "s3://bucket"]) {
    expect(isNbdUri(path)).toBe(false);
  }
});
