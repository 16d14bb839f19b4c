import { isDeepStrictEqual } from "node:util";
import type { z } from "zod";
import { Policy, Provider, Repository } from "../../contracts/catalog-items.ts";
import { Failure } from "../../domain/failure.ts";
import type { Catalog } from "../../ports/catalog.ts";
import { absent, type Item, present, type Table } from "./table.ts";

/** Providers, repositories and policies: few, each one item; all of a kind in one partition. */
type Entities = Pick<
  Catalog,
  | "putProvider"
  | "getProvider"
  | "listProviders"
  | "recordSync"
  | "putRepository"
  | "getRepository"
  | "listRepositories"
  | "limitProvider"
  | "limitRepository"
  | "putPolicy"
  | "getPolicy"
  | "listPolicies"
  | "removePolicy"
> & { readonly removeProviderItem: (providerId: string) => Promise<void> };

export function createEntities(table: Table): Entities {
  const providers = collection(table, "provider", Provider);
  const repositories = collection(table, "repository", Repository);
  const policies = collection(table, "policy", Policy);
  return {
    async putProvider(provider, { create }) {
      if (create) await providers.create(provider.providerId, provider);
      else await providers.replace(provider.providerId, provider);
    },
    getProvider: providers.get,
    listProviders: providers.list,
    removeProviderItem: providers.remove,
    async recordSync(providerId, { at, error }) {
      const after = await table.update(providers.key(providerId), {
        set: { lastSyncAt: at, lastSyncError: error },
        remove: error === undefined ? ["lastSyncError"] : [],
        ...present,
      });
      if (after === undefined) throw notFound("provider", providerId);
    },

    putRepository: (repository, options) =>
      putEntity(repositories, repository.repositoryId, repository, options),
    getRepository: repositories.get,
    listRepositories: repositories.list,
    limitProvider: (providerId, limits) => providers.set(providerId, { limits }),
    limitRepository: (repositoryId, limits) => repositories.set(repositoryId, { limits }),

    putPolicy: (policy, options) => putEntity(policies, policy.policyId, policy, options),
    getPolicy: policies.get,
    listPolicies: policies.list,
    removePolicy: policies.remove,
  };
}

type Collection<Entity> = ReturnType<typeof collection<Entity & Item>>;

function putEntity<Entity extends Item>(
  entities: Collection<Entity>,
  id: string,
  entity: Entity,
  options: { readonly create: boolean } | undefined,
): Promise<void> {
  return options?.create ? entities.create(id, entity) : entities.put(id, entity);
}

function collection<Entity extends Item>(table: Table, kind: string, schema: z.ZodType<Entity>) {
  const partition = kind.toUpperCase();
  const key = (id: string) => ({ PK: partition, SK: id });
  return {
    key,
    async get(id: string): Promise<Entity> {
      const item = await table.get(key(id));
      if (item === undefined) throw notFound(kind, id);
      return parseItem(schema, item, `${kind} ${id}`);
    },
    async list(): Promise<readonly Entity[]> {
      const entities: Entity[] = [];
      for await (const item of table.query({ partition })) {
        entities.push(parseItem(schema, item, `${kind} ${String(item["SK"])}`));
      }
      return entities;
    },
    async create(id: string, entity: Entity): Promise<void> {
      if (await table.put({ ...entity, ...key(id) }, absent)) return;
      // Our own write, whose answer got lost and which the SDK sent again, is a success.
      const there = await table.get(key(id));
      if (there !== undefined && isDeepStrictEqual(parseItem(schema, there, id), entity)) return;
      throw new Failure("conflict", { message: `${kind} ${id} exists already` });
    },
    async put(id: string, entity: Entity): Promise<void> {
      await table.put({ ...entity, ...key(id) });
    },
    async replace(id: string, entity: Entity): Promise<void> {
      if (await table.put({ ...entity, ...key(id) }, present)) return;
      throw notFound(kind, id);
    },
    async set(id: string, change: Item): Promise<Entity> {
      const after = await table.update(key(id), { set: change, ...present });
      if (after === undefined) throw notFound(kind, id);
      return parseItem(schema, after, `${kind} ${id}`);
    },
    async remove(id: string): Promise<void> {
      // Looked up first: a conditional removal could not tell "never there" from "removed by my first, unanswered try".
      if ((await table.get(key(id))) === undefined) throw notFound(kind, id);
      await table.remove(key(id));
    },
  };
}

export function notFound(kind: string, id: string): Failure {
  return new Failure("not-found", { message: `there is no ${kind} ${JSON.stringify(id)}` });
}

/** An item without its keys, checked. An item that doesn't fit the schema is `internal`; the message has no values. */
export function parseItem<Entity>(schema: z.ZodType<Entity>, item: Item, what: string): Entity {
  const { PK: _pk, SK: _sk, GSI1PK: _gsi1pk, GSI1SK: _gsi1sk, ...fields } = item;
  const parsed = schema.safeParse(fields);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  throw new Failure("internal", {
    message: `the catalog's item of ${what} is not understood: ${where.slice(0, 5).join("; ")}`,
  });
}
