import { bodyBytesMax, type Route, type RouteName, routes } from "@holdfast/shared/contracts/api";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type ApiHarness,
  type Call,
  canary,
  newPolicy,
  newProvider,
  newRepository,
  openApi,
  token,
} from "../../test/helpers/api-harness.ts";
import { handleRequest } from "./api.ts";

let api: ApiHarness;
const call = (method: string, path: string, request?: Call) => api.call(method, path, request);
const get = (path: string, request?: Call) => api.get(path, request);
beforeEach(async () => {
  api = await openApi();
});
afterEach(() => api.close());

describe("matrix: every route", () => {
  for (const [name, route] of Object.entries<Route>(routes)) {
    const path = route.path.replace("{id}", "none");
    // What each needs to get past its schemas.
    const queries: Partial<Record<RouteName, string>> = { listPoints: "vm=none" };
    const query = queries[name as RouteName] ?? "";

    test(`${name}: without or with a wrong token, nothing`, async () => {
      for (const headers of [
        {},
        { authorization: "Bearer wrong" },
        { authorization: token },
        { authorization: `Basic ${token}` },
        { authorization: `Bearer ${token} ${token}` },
        { authorization: "Bearer " },
      ]) {
        const {
          status,
          json,
          headers: answered,
        } = await call(route.method, path, { headers, query });
        expect(status).toBe(401);
        expect(json.code).toBe("auth.denied");
        expect(answered["www-authenticate"]).toBeDefined();
      }
    });

    test(`${name}: a body too large, unreadable or unknown is refused`, async () => {
      const large = await call(route.method, path, {
        query,
        rawBody: JSON.stringify({ x: "a".repeat(bodyBytesMax) }),
      });
      expect(large.status).toBe(413);
      for (const rawBody of [
        `{"secret": ${canary}`,
        "[]",
        "7",
        "null",
        `{"unknown":"${canary}"}`,
      ]) {
        const { status, json } = await call(route.method, path, { query, rawBody });
        expect(status).toBe(400);
        expect(json.code).toBe("input.invalid");
      }
    });

    test(`${name}: an unknown query parameter is refused`, async () => {
      const { status } = await call(route.method, path, { query: "unknown=1" });
      expect(status).toBe(400);
    });

    if (route.path.includes("{id}") && name !== "changePolicy") {
      test(`${name}: an unknown id is 404`, async () => {
        const body = name === "forgetExpired" ? { removed: ["none"] } : {};
        const request = route.body === undefined ? {} : { body };
        for (const id of ["none", "..%2F..%2Fetc", "%00", "VM%23x", "a%20b"]) {
          const { status, json } = await call(
            route.method,
            route.path.replace("{id}", id),
            request,
          );
          expect(status).toBe(404);
          expect(json.code).toBe("not-found");
        }
        expect((await call(route.method, route.path.replace("{id}", "%ZZ"))).status).toBe(400);
      });
    }
  }

  const bodies: readonly [RouteName, Record<string, unknown>][] = [
    ["addProvider", newProvider],
    ["addRepository", newRepository],
    ["addPolicy", newPolicy],
    ["changePolicy", { repositoryId: "main", selection: { namePattern: "*" } }],
    ["startBackup", { vm: "web", full: false, policyId: "p", repositoryId: "r", options: {} }],
    ["startRestore", { pointId: "pt", mode: "new", start: false, name: "x" }],
    ["limitRepository", { readBytesPerSecond: 1, writeBytesPerSecond: 2, requestsPerSecond: 3 }],
    ["limitProvider", { readBytesPerSecond: 1, writeBytesPerSecond: 2, requestsPerSecond: 3 }],
  ];
  for (const [name, body] of bodies) {
    test(`${name}: each field of a wrong type is refused, and named`, async () => {
      const route: Route = routes[name];
      const path = route.path.replace("{id}", "none");
      for (const field of Object.keys(body)) {
        const wrong = {
          ...body,
          [field]: typeof body[field] === "object" ? canary : { a: canary },
        };
        const { status, json } = await call(route.method, path, { body: wrong });
        expect(status).toBe(400);
        expect(json.detail).toContain(field);
      }
    });
  }

  test("an unknown path is 404, a wrong method 405, each only with a token", async () => {
    expect((await get("/v1/none")).status).toBe(404);
    expect((await get("/")).status).toBe(404);
    expect((await get("/v1/vms/")).status).toBe(400);
    expect((await call("DELETE", "/v1/vms")).status).toBe(405);
    expect((await get("/v1/none", { headers: {} })).status).toBe(401);
  });

  test("what is no HTTP event is refused", async () => {
    const response = await handleRequest(
      { Records: [] },
      { ...api.options, tokenSha256: undefined },
    );
    expect(response.statusCode).toBe(400);
  });
});
