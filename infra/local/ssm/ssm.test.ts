import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  DeleteParameterCommand,
  DescribeParametersCommand,
  GetParameterCommand,
  GetParametersByPathCommand,
  GetParametersCommand,
  PutParameterCommand,
  type PutParameterCommandInput,
  type SSMClient,
} from "@aws-sdk/client-ssm";
import { expect, test } from "vitest";
import { startTestStack } from "../test-stack.ts";

const put = (
  ssm: SSMClient,
  Name: string,
  Value: string,
  more: Partial<PutParameterCommandInput> = {},
) => ssm.send(new PutParameterCommand({ Name, Value, Type: "SecureString", ...more }));

test("a secure string is sealed on the disk and comes back after a restart", async () => {
  await using stack = await startTestStack();
  await put(stack.ssm, "/app/secret", "correct horse");
  const file = join(stack.state, "ssm", "parameters.json");
  expect(readFileSync(file, "utf8")).not.toContain("correct horse");
  expect(statSync(join(stack.state, "ssm", "key")).mode & 0o777).toBe(0o600);
  const { ssm } = await stack.restart();
  const sealed = await ssm.send(new GetParameterCommand({ Name: "/app/secret" }));
  expect(sealed.Parameter?.Value).not.toBe("correct horse");
  const open = await ssm.send(
    new GetParameterCommand({ Name: "/app/secret", WithDecryption: true }),
  );
  expect(open.Parameter).toMatchObject({
    Value: "correct horse",
    Version: 1,
    Type: "SecureString",
  });
});

test("a sealed value moved to another name does not open", async () => {
  await using stack = await startTestStack();
  await put(stack.ssm, "/app/a", "one");
  await put(stack.ssm, "/app/b", "two");
  const file = join(stack.state, "ssm", "parameters.json");
  await stack.close();
  const stored = JSON.parse(readFileSync(file, "utf8")) as Record<string, { value: string }>;
  const swapped = { ...stored, "/app/b": { ...stored["/app/b"], value: stored["/app/a"]?.value } };
  writeFileSync(file, JSON.stringify(swapped));
  const { ssm } = await stack.restart();
  await expect(
    ssm.send(new GetParameterCommand({ Name: "/app/b", WithDecryption: true })),
  ).rejects.toMatchObject({ name: "InternalFailure" });
});

test("a parameter is overwritten only when that is asked for", async () => {
  await using stack = await startTestStack();
  await put(stack.ssm, "/p", "1", { Type: "String" });
  await expect(put(stack.ssm, "/p", "2", { Type: "String" })).rejects.toMatchObject({
    name: "ParameterAlreadyExists",
  });
  const { Version } = await put(stack.ssm, "/p", "2", { Type: "String", Overwrite: true });
  expect(Version).toBe(2);
  await expect(put(stack.ssm, "/p", "x".repeat(4097), { Overwrite: true })).rejects.toMatchObject({
    name: "HierarchyTypeMismatchException",
  });
  await expect(
    put(stack.ssm, "/p", "x".repeat(4097), { Type: "String", Overwrite: true }),
  ).rejects.toMatchObject({ name: "ValidationException" });
});

test("many are read by name and by path, page by page", async () => {
  await using stack = await startTestStack();
  const names = Array.from({ length: 12 }, (_, i) => `/tree/p${String(i).padStart(2, "0")}`);
  for (const name of [...names, "/tree/deep/er"]) {
    await put(stack.ssm, name, name, { Type: "String" });
  }
  const several = await stack.ssm.send(new GetParametersCommand({ Names: ["/tree/p00", "/none"] }));
  expect(several.Parameters?.map(({ Value }) => Value)).toEqual(["/tree/p00"]);
  expect(several.InvalidParameters).toEqual(["/none"]);
  const first = await stack.ssm.send(new GetParametersByPathCommand({ Path: "/tree" }));
  const second = await stack.ssm.send(
    new GetParametersByPathCommand({ Path: "/tree", NextToken: first.NextToken }),
  );
  const found = [...(first.Parameters ?? []), ...(second.Parameters ?? [])];
  expect(found.map(({ Name }) => Name)).toEqual(names);
  expect(second.NextToken).toBeUndefined();
  await stack.ssm.send(new DeleteParameterCommand({ Name: "/tree/p00" }));
  await expect(
    stack.ssm.send(new GetParameterCommand({ Name: "/tree/p00" })),
  ).rejects.toMatchObject({ name: "ParameterNotFound" });
});

test("what is not there is refused by its name", async () => {
  await using stack = await startTestStack();
  await expect(stack.ssm.send(new DescribeParametersCommand({}))).rejects.toMatchObject({
    name: "UnknownOperationException",
    message: expect.stringContaining("AmazonSSM.DescribeParameters"),
  });
});
