import { type EventBridgeClient, PutEventsCommand } from "@aws-sdk/client-eventbridge";
import { Failure } from "../domain/failure.ts";
import type { EventBus } from "../ports/event-bus.ts";
import { callAws } from "./aws-failures.ts";

export function createEventBus(client: EventBridgeClient, busName: string): EventBus {
  return {
    async publish({ type, detail }) {
      const answer = await callAws(`publishing ${type}`, () =>
        client.send(
          new PutEventsCommand({
            Entries: [
              {
                EventBusName: busName,
                Source: "holdfast",
                DetailType: type,
                Detail: JSON.stringify(detail),
              },
            ],
          }),
        ),
      );
      if ((answer.FailedEntryCount ?? 0) > 0) {
        const [entry] = answer.Entries ?? [];
        throw new Failure("aws.failed", {
          message: `publishing ${type}: ${entry?.ErrorCode ?? "failed"}: ${entry?.ErrorMessage ?? ""}`,
        });
      }
    },
  };
}
