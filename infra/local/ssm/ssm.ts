import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { AwsError } from "../aws-error.ts";
import { openJsonMapFile, readFileIfAny, replaceFile } from "../durable/json-file.ts";
import type { Json } from "../json.ts";
import { account, region } from "../names.ts";
import { epochSeconds, type Operations, operation } from "../operations.ts";

/**
 * SSM Parameter Store. SecureString values lie on the disk under AES-256-GCM with a key file of mode 0600 beside
 * them, bound to their name and version; that protects a copied parameter file, not one copied with its key.
 */
const StoredParameter = z.strictObject({
  name: z.string(),
  type: z.enum(["String", "StringList", "SecureString"]),
  version: z.int(),
  modifiedAt: z.number(),
  /** The value, or for SecureString nonce, tag and ciphertext in base64. */
  value: z.string(),
  description: z.string().optional(),
});
type StoredParameter = z.infer<typeof StoredParameter>;

const nameShape = z.string().regex(/^(\/?[A-Za-z0-9._-]+)(\/[A-Za-z0-9._-]+){0,14}$/, "not a name");

export function openSsm(folder: string, now: () => number = Date.now): { operations: Operations } {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const key = openKey(join(folder, "key"));
  const parameters = openJsonMapFile(join(folder, "parameters.json"), (v) =>
    StoredParameter.parse(v),
  );

  const find = (name: string): StoredParameter => {
    const found = parameters.get(name);
    if (found === undefined) throw new AwsError("ParameterNotFound", `No parameter ${name}`);
    return found;
  };
  const show = (parameter: StoredParameter, decrypt: boolean): Json => ({
    Name: parameter.name,
    Type: parameter.type,
    Value: parameter.type === "SecureString" && decrypt ? open(key, parameter) : parameter.value,
    Version: parameter.version,
    LastModifiedDate: epochSeconds(parameter.modifiedAt),
    ARN: `arn:aws:ssm:${region}:${account}:parameter/${parameter.name.replace(/^\//, "")}`,
    DataType: "text",
  });
  const WithDecryption = z.boolean().default(false);

  const operations: Operations = {
    PutParameter: operation(
      z.strictObject({
        Name: nameShape,
        Value: z.string().min(1),
        Type: z.enum(["String", "StringList", "SecureString"]).optional(),
        Overwrite: z.boolean().default(false),
        Description: z.string().max(1024).optional(),
        Tier: z.enum(["Standard", "Advanced", "Intelligent-Tiering"]).default("Standard"),
        KeyId: z.string().optional(),
        DataType: z.literal("text").optional(),
        Tags: z.array(z.unknown()).optional(),
      }),
      ({ Name, Value, Type, Overwrite, Description, Tier }) => {
        const existing = parameters.get(Name);
        if (existing !== undefined && !Overwrite) {
          throw new AwsError("ParameterAlreadyExists", `The parameter ${Name} already exists`);
        }
        const type = Type ?? existing?.type;
        if (type === undefined) throw new AwsError("ValidationException", "Type is needed");
        if (existing !== undefined && existing.type !== type) {
          throw new AwsError("HierarchyTypeMismatchException", `${Name} has another type`);
        }
        const sizeBytesMax = Tier === "Standard" ? 4096 : 8192;
        if (Buffer.byteLength(Value) > sizeBytesMax) {
          throw new AwsError(
            "ValidationException",
            `A ${Tier} value has ${sizeBytesMax} bytes at most`,
          );
        }
        const version = (existing?.version ?? 0) + 1;
        const value = type === "SecureString" ? seal(key, Name, version, Value) : Value;
        const description = Description ?? existing?.description;
        parameters.set(Name, {
          name: Name,
          type,
          version,
          modifiedAt: now(),
          value,
          ...(description === undefined ? {} : { description }),
        });
        return { Version: version, Tier: "Standard" };
      },
    ),
    GetParameter: operation(
      z.strictObject({ Name: z.string(), WithDecryption }),
      (input): Json => ({ Parameter: show(find(input.Name), input.WithDecryption) }),
    ),
    GetParameters: operation(
      z.strictObject({ Names: z.array(z.string()).min(1).max(10), WithDecryption }),
      (input): Json => {
        const names = [...new Set(input.Names)];
        const found = names.flatMap((name) => parameters.get(name) ?? []);
        return {
          Parameters: found.map((parameter) => show(parameter, input.WithDecryption)),
          InvalidParameters: names.filter((name) => parameters.get(name) === undefined),
        };
      },
    ),
    GetParametersByPath: operation(
      z.strictObject({
        Path: z.string().startsWith("/"),
        Recursive: z.boolean().default(false),
        WithDecryption,
        MaxResults: z.int().min(1).max(10).default(10),
        NextToken: z.string().optional(),
      }),
      ({ Path, Recursive, WithDecryption: decrypt, MaxResults, NextToken }): Json => {
        const prefix = Path.endsWith("/") ? Path : `${Path}/`;
        const found = parameters
          .values()
          .filter(({ name }) => name.startsWith(prefix))
          .filter(({ name }) => Recursive || !name.slice(prefix.length).includes("/"))
          .sort((left, right) => (left.name < right.name ? -1 : 1))
          .filter(({ name }) => NextToken === undefined || name > NextToken);
        const page = found.slice(0, MaxResults);
        const last = page.at(-1);
        return {
          Parameters: page.map((parameter) => show(parameter, decrypt)),
          ...(found.length > page.length && last !== undefined ? { NextToken: last.name } : {}),
        };
      },
    ),
    DeleteParameter: operation(z.strictObject({ Name: z.string() }), ({ Name }) => {
      find(Name);
      parameters.delete(Name);
      return {};
    }),
  };
  return { operations };
}

function openKey(path: string): Buffer {
  const text = readFileIfAny(path);
  if (text === undefined) {
    const key = randomBytes(32);
    replaceFile(path, key.toString("hex"), 0o600);
    return key;
  }
  const key = Buffer.from(text.trim(), "hex");
  if (key.length !== 32) throw new Error(`${path} does not hold a 256-bit key in hex`);
  return key;
}

const bound = (name: string, version: number) =>
  Buffer.from(`holdfast-local-ssm\n${version}\n${name}`);

function seal(key: Buffer, name: string, version: number, value: string): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(bound(name, version));
  const sealed = Buffer.concat([cipher.update(value, "utf8"), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString("base64");
}

function open(key: Buffer, { name, version, value }: StoredParameter): string {
  const bytes = Buffer.from(value, "base64");
  const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, 12), {
    authTagLength: 16,
  });
  decipher.setAAD(bound(name, version)).setAuthTag(bytes.subarray(12, 28));
  return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString("utf8");
}
