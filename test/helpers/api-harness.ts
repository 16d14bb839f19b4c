import { createHash } from "node:crypto";
import { ScanCommand } from "@aws-sdk/lib-dynamodb";
import { Problem } from "@holdfast/shared/contracts/api";
import { expect } from "vitest";
import { type ApiOptions, handleRequest } from "../../functions/api/api.ts";
import { createOperations } from "../../functions/api/operations.ts";
import { type ControlPlane, openControlPlane } from "./control-plane.ts";

/** The API over a control plane in memory. Closing it fails when a secret was answered, stored or logged. */
export const token = "CANARY-token-5b1f";
export const canary = "CANARY-secret-77aa";

export const newProvider = {
  providerId: "kvm-1",
  settings: {
    kind: "libvirt",
    ssh: { host: "kvm-1.example", hostKeys: ["ssh-ed25519 AAAA"], login: "key" },
  },
  secret: canary,
};
export const newRepository = {
  repositoryId: "main",
  url: "s3://backups/main",
  passphrase: canary,
};
export const newPolicy = {
  policyId: "nightly",
  repositoryId: "main",
  selection: { namePattern: "web*" },
};

export type Call = {
  readonly body?: unknown;
  readonly rawBody?: string;
  readonly query?: string;
  readonly headers?: Record<string, string>;
};

export type ApiHarness = Awaited<ReturnType<typeof openApi>>;

export async function openApi() {
  const plane: ControlPlane = await openControlPlane();
  const answers: string[] = [];
  const options: ApiOptions = {
    operations: createOperations({
      ...plane,
      schedules: () => plane.schedules,
      parameterPrefix: "/holdfast/test",
    }),
    tokenSha256: async () => createHash("sha256").update(token).digest("hex"),
    logger: plane.logger,
  };

  const call = async (method: string, path: string, request: Call = {}) => {
    const { body, rawBody, query = "" } = request;
    const { headers = { Authorization: `Bearer ${token}` } } = request;
    const response = await handleRequest(
      {
        version: "2.0",
        rawPath: path,
        rawQueryString: query,
        headers,
        requestContext: { http: { method } },
        isBase64Encoded: false,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(rawBody === undefined ? {} : { body: rawBody }),
      },
      options,
    );
    answers.push(JSON.stringify(response));
    const json = response.body === undefined ? undefined : JSON.parse(response.body);
    if (response.statusCode >= 400) Problem.parse(json);
    return { status: response.statusCode, json, headers: response.headers };
  };

  return {
    plane,
    options,
    call,
    get: (path: string, request?: Call) => call("GET", path, request),
    post: (path: string, body?: unknown, request?: Call) =>
      call("POST", path, { ...request, ...(body === undefined ? {} : { body }) }),
    async close(): Promise<void> {
      const { client, tableName: TableName } = plane.table;
      const items = await client.send(new ScanCommand({ TableName }));
      for (const place of [answers, plane.logLines, items.Items]) {
        expect(JSON.stringify(place)).not.toContain("CANARY");
      }
      await plane[Symbol.asyncDispose]();
    },
  };
}
