import type { RouteName, RouteResponse, routes } from "@holdfast/shared/contracts/api";
import type { Parameters } from "@holdfast/shared/ports/parameters";
import type { Schedules } from "@holdfast/shared/ports/schedules";
import type { z } from "zod";
import type { StartServices } from "../jobs/start-jobs.ts";
import { inventoryOperations } from "./inventory-operations.ts";
import { jobOperations } from "./job-operations.ts";
import { policyOperations } from "./policy-operations.ts";

/** What the API's operations reach the world through. */
export type ApiServices = StartServices & {
  readonly parameters: Parameters;
  readonly schedules: () => Schedules;
  /** Secrets of this installation live below this path. */
  readonly parameterPrefix: string;
};

type Parsed<
  Name extends RouteName,
  Field extends "body" | "query",
> = (typeof routes)[Name] extends { readonly [key in Field]: infer Schema extends z.ZodType }
  ? z.output<Schema>
  : undefined;

export type ApiRequest<Name extends RouteName> = {
  /** What stands for `{id}` in the path; empty where there is none. */
  readonly id: string;
  readonly query: Parsed<Name, "query">;
  readonly body: Parsed<Name, "body">;
  readonly idempotencyKey: string | undefined;
};

/** One function a route; the compiler holds each against the route's schemas, and the table against the routes. */
export type Operations<Names extends RouteName = RouteName> = {
  readonly [Name in Names]: (request: ApiRequest<Name>) => Promise<RouteResponse<Name>>;
};

export function createOperations(services: ApiServices): Operations {
  return {
    ...inventoryOperations(services),
    ...policyOperations(services),
    ...jobOperations(services),
  };
}
