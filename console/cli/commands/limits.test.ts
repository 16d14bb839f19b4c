import { Failure } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import type { MoverProcess } from "../mover-process.ts";
import { runCli, startScriptedApi } from "../testing.ts";

const repository = { repositoryId: "lab", url: "/srv", createdAt: "2026-11-20T12:00:00Z" };

async function limit(words: readonly string[], limits: Record<string, number>) {
  await using api = await startScriptedApi(({ method, body }) => {
    if (method === "GET") return { status: 200, body: { items: [{ ...repository, limits }] } };
    return { status: 200, body: { ...repository, limits: body } };
  });
  const run = await runCli(["repository", "limit", "lab", ...words], { endpoint: api.endpoint });
  return { ...run, sent: api.exchanges.filter(({ method }) => method === "PUT") };
}

test("what is not named stays, off takes a limit away, and 0 is sent as 0", async () => {
  const limits = { readBytesPerSecond: 5, requestsPerSecond: 7 };
  const { code, sent, stdout } = await limit(["--upload", "20M", "--download", "off"], limits);
  expect(code).toBe(0);
  expect(sent).toMatchObject([{ path: "/v1/repositories/lab/limits" }]);
  expect(sent[0]?.body).toEqual({ writeBytesPerSecond: 20 * 1024 ** 2, requestsPerSecond: 7 });
  expect(stdout).toMatch(/upload\s+20.0 MiB\/s/);
  const zero = await limit(["--upload", "0"], {});
  expect(zero.sent[0]?.body).toEqual({ writeBytesPerSecond: 0 });
  expect(zero.stdout).toMatch(/nothing may pass/);
});

test("without an option the limits are shown, and nothing is sent", async () => {
  const { code, sent, stdout } = await limit([], { readBytesPerSecond: 1024 });
  expect([code, sent]).toEqual([0, []]);
  expect(stdout).toMatch(/download\s+1.00 KiB\/s/);
});

test.each(["fast", "-1", "1.5M", ""])(
  "a rate of %j is refused before anything is sent",
  async (rate) => {
    const { code, sent } = await limit([`--upload=${rate}`], {});
    expect([code, sent]).toEqual([2, []]);
  },
);

test.each([
  ["repository verify", "/srv"],
  ["repository repair", "/srv"],
  ["repository gc", "/srv"],
  ["repository compact", "/srv"],
  ["repository rebuild", "/srv"],
  ["repository copy", "/srv /other"],
  ["image forget", "--repository /srv --keep-last 1"],
])("%s takes limits along", async (path, words) => {
  const requests: unknown[] = [];
  const mover: MoverProcess = {
    run: async (request) => {
      requests.push(request);
      throw new Failure("cancelled", { message: "enough is known" });
    },
  };
  const environment = {
    HOLDFAST_PASSPHRASE: "secret",
    HOLDFAST_TARGET_PASSPHRASE: "other",
  };
  const limits = ["--limit-upload", "1M", "--limit-download", "off", "--limits-file", "/l.json"];
  await runCli([...`${path} ${words}`.split(" "), ...limits], { mover, environment });
  expect(requests).toMatchObject([
    { limits: { upload: 1024 ** 2, download: "off", file: "/l.json" } },
  ]);
});
