import { Failure } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import { createApiClient } from "./api-client.ts";
import { type Answer, createFakeClock, startScriptedApi } from "./testing.ts";

const status = {
  service: "holdfast",
  apiVersion: 1,
  time: "2026-11-20T12:00:00Z",
  providers: 1,
  repositories: 1,
  policies: 0,
  vms: 3,
  movers: [],
};

const problem = (httpStatus: number, code: string, more: object = {}): Answer => ({
  status: httpStatus,
  body: {
    type: "about:blank",
    title: code,
    status: httpStatus,
    detail: `detail of ${code}`,
    code,
    id: "HF",
    advice: "",
    causes: ["outer", "inner"],
    ...more,
  },
});

function clientOf(endpoint: string) {
  return createApiClient({ endpoint, token: "secret-token", clock: createFakeClock() });
}

test("a call carries the token, fills and encodes the path, the query and the body", async () => {
  await using api = await startScriptedApi(() => ({ status: 200, body: { items: [] } }));
  const client = clientOf(`${api.endpoint}/`);
  await client.call("listJobs", { query: { limit: 5, vm: "web 1" } });
  await client.call("listPolicyMatches", { id: "a/b?c" });
  expect(api.exchanges[0]?.headers["authorization"]).toBe("Bearer secret-token");
  expect(api.exchanges.map(({ path }) => path)).toEqual([
    "/v1/jobs?limit=5&vm=web+1",
    "/v1/policies/a%2Fb%3Fc/matches",
  ]);
});

test.each([
  ["not-found", 404],
  ["busy", 409],
  ["input.invalid", 400],
] as const)("a problem %s becomes that failure, causes kept", async (code, httpStatus) => {
  await using api = await startScriptedApi(() => problem(httpStatus, code));
  const error = await clientOf(api.endpoint)
    .call("getStatus")
    .catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code, message: `detail of ${code}` });
  expect(error).toMatchObject({ cause: { message: "outer", cause: { message: "inner" } } });
});

test("the job that holds the VM is named", async () => {
  await using api = await startScriptedApi(() => problem(409, "busy", { jobId: "job-7" }));
  const call = clientOf(api.endpoint).call("startBackup", { body: { vm: "web1" } });
  await expect(call).rejects.toThrow("held by job job-7");
});

test.each([
  [401, "auth.denied"],
  [403, "auth.denied"],
  [500, "protocol.invalid"],
])("status %d without a problem document is %s", async (httpStatus, code) => {
  await using api = await startScriptedApi(() => ({ status: httpStatus, body: "<html>" }));
  await expect(clientOf(api.endpoint).call("getStatus")).rejects.toMatchObject({ code });
});

test("an answer that does not match its schema is refused", async () => {
  await using api = await startScriptedApi(() => ({ status: 200, body: { ...status, vms: "3" } }));
  await expect(clientOf(api.endpoint).call("getStatus")).rejects.toMatchObject({
    code: "protocol.invalid",
  });
});

test("a read is repeated over a lost connection and a busy gateway", async () => {
  const script: (Answer | "hang-up")[] = [
    "hang-up",
    { status: 503 },
    { status: 200, body: status },
  ];
  await using api = await startScriptedApi(() => script.shift() ?? { status: 500 });
  expect(await clientOf(api.endpoint).call("getStatus")).toEqual(status);
  expect(api.exchanges.length).toBe(3);
});

test("a change is repeated only under an idempotency key, and then with the same one", async () => {
  await using api = await startScriptedApi(() => "hang-up");
  const client = clientOf(api.endpoint);
  const unreachable = { code: "network.unreachable" };
  await expect(client.call("removePolicy", { id: "a" })).rejects.toMatchObject(unreachable);
  expect(api.exchanges.length).toBe(1);
  const body = { vm: "web1" };
  const call = client.call("startBackup", { body, idempotencyKey: "key-1" });
  await expect(call).rejects.toMatchObject(unreachable);
  const keys = api.exchanges.slice(1).map(({ headers }) => headers["idempotency-key"]);
  expect(keys).toEqual(["key-1", "key-1", "key-1"]);
});

test("nobody there is network.unreachable with the way to start one", async () => {
  const api = await startScriptedApi(() => "hang-up");
  await api[Symbol.asyncDispose]();
  const error = await clientOf(api.endpoint)
    .call("getStatus")
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(Failure);
  expect(error).toMatchObject({
    code: "network.unreachable",
    message: expect.stringContaining("holdfast up"),
  });
});

test("the token is never in an error", async () => {
  await using api = await startScriptedApi(() => ({ status: 401 }));
  const error = await clientOf(api.endpoint)
    .call("getStatus")
    .catch((thrown: unknown) => thrown);
  expect(JSON.stringify(error) + String(error)).not.toContain("secret-token");
});

test("an endpoint that is no URL is refused before any call", () => {
  expect(() => clientOf("localhost:80 80")).toThrow("is not a URL");
  expect(() => clientOf("file:///etc/passwd")).toThrow("is not a URL");
});
