import { ConditionalCheckFailedException } from "@aws-sdk/client-dynamodb";
import {
  DeleteCommand,
  type DynamoDBDocumentClient,
  GetCommand,
  PutCommand,
  QueryCommand,
  UpdateCommand,
} from "@aws-sdk/lib-dynamodb";
import { callAws } from "../aws-failures.ts";

/**
 * The one DynamoDB table: keys PK and SK, index GSI1 over GSI1PK and GSI1SK with all attributes. Reads by key are
 * consistent; the index may lag. In expressions `#name` stands for the attribute `name`.
 */
export interface Table {
  get(key: Key): Promise<Item | undefined>;
  /** False when the condition did not hold. */
  put(item: Key & Item, condition?: Condition): Promise<boolean>;
  /** The new item, or undefined when the condition did not hold. */
  update(key: Key, change: Change): Promise<Item | undefined>;
  /** False when the condition did not hold. */
  remove(key: Key, condition?: Condition): Promise<boolean>;
  /** All pages, in the order of the sort key. */
  query(query: Query): AsyncGenerator<Item>;
}

export type Key = { readonly PK: string; readonly SK: string };
export type Item = Record<string, unknown>;
export type Condition = { readonly if: string; readonly values?: Item };
export type Change = Partial<Condition> & {
  /** Attribute to value; undefined values are left alone. */
  readonly set?: Item;
  /** Further SET clauses: `#fence = #fence + :one`. */
  readonly compute?: readonly string[];
  readonly remove?: readonly string[];
  readonly values?: Item;
};
export type Query = {
  readonly index?: "GSI1";
  readonly partition: string;
  /** The sort key's beginning. */
  readonly prefix?: string;
  readonly newestFirst?: boolean;
  readonly pageSize?: number;
};

export const absent: Condition = { if: "attribute_not_exists(#PK)" };
export const present: Condition = { if: "attribute_exists(#PK)" };

export function createTable(client: DynamoDBDocumentClient, tableName: string): Table {
  const TableName = tableName;
  const conditional = async (send: () => Promise<unknown>): Promise<boolean> => {
    try {
      await send();
      return true;
    } catch (error) {
      if (error instanceof ConditionalCheckFailedException) return false;
      throw error;
    }
  };
  return {
    get: (Key) =>
      callAws("reading the catalog", async () => {
        const answer = await client.send(new GetCommand({ TableName, Key, ConsistentRead: true }));
        return answer.Item;
      }),
    put: (Item, condition) =>
      callAws("writing the catalog", () =>
        conditional(() => client.send(new PutCommand({ TableName, Item, ...asInput(condition) }))),
      ),
    remove: (Key, condition) =>
      callAws("writing the catalog", () =>
        conditional(() =>
          client.send(new DeleteCommand({ TableName, Key, ...asInput(condition) })),
        ),
      ),
    update: (Key, change) =>
      callAws("writing the catalog", async () => {
        let after: Item | undefined;
        await conditional(async () => {
          const answer = await client.send(
            new UpdateCommand({
              TableName,
              Key,
              ...updateInput(change),
              ReturnValues: "ALL_NEW",
            }),
          );
          after = answer.Attributes;
        });
        return after;
      }),
    async *query({ index, partition, prefix, newestFirst = false, pageSize }) {
      const [pk, sk] = index === undefined ? ["PK", "SK"] : ["GSI1PK", "GSI1SK"];
      let start: Item | undefined;
      do {
        const answer = await callAws("reading the catalog", () =>
          client.send(
            new QueryCommand({
              TableName,
              ...(index === undefined ? { ConsistentRead: true } : { IndexName: index }),
              KeyConditionExpression: prefix ? "#pk = :pk AND begins_with(#sk, :sk)" : "#pk = :pk",
              ExpressionAttributeNames: prefix ? { "#pk": pk, "#sk": sk } : { "#pk": pk },
              ExpressionAttributeValues: prefix
                ? { ":pk": partition, ":sk": prefix }
                : { ":pk": partition },
              ScanIndexForward: !newestFirst,
              ...(start === undefined ? {} : { ExclusiveStartKey: start }),
              ...(pageSize === undefined ? {} : { Limit: pageSize }),
            }),
          ),
        );
        yield* answer.Items ?? [];
        start = answer.LastEvaluatedKey;
      } while (start !== undefined);
    },
  };
}

function asInput(condition: Condition | undefined) {
  if (condition === undefined) return {};
  return {
    ConditionExpression: condition.if,
    ...namesAndValues([condition.if], condition.values ?? {}),
  };
}

function updateInput(change: Change) {
  const values: Item = { ...change.values };
  const sets = [...(change.compute ?? [])];
  for (const [name, value] of Object.entries(change.set ?? {})) {
    if (value === undefined) continue;
    sets.push(`#${name} = :set_${name}`);
    values[`:set_${name}`] = value;
  }
  const clauses: string[] = [];
  if (sets.length > 0) clauses.push(`SET ${sets.join(", ")}`);
  if (change.remove !== undefined && change.remove.length > 0) {
    clauses.push(`REMOVE ${change.remove.map((name) => `#${name}`).join(", ")}`);
  }
  const expression = clauses.join(" ");
  return {
    UpdateExpression: expression,
    ...(change.if === undefined ? {} : { ConditionExpression: change.if }),
    ...namesAndValues([expression, change.if ?? ""], values),
  };
}

function namesAndValues(expressions: readonly string[], values: Item) {
  const names: Record<string, string> = {};
  for (const expression of expressions) {
    for (const [placeholder, name] of expression.matchAll(/#(\w+)/g)) {
      if (name !== undefined) names[placeholder] = name;
    }
  }
  return {
    ExpressionAttributeNames: names,
    ...(Object.keys(values).length === 0 ? {} : { ExpressionAttributeValues: values }),
  };
}
