import { AwsError } from "../aws-error.ts";
import { parseJson } from "../json.ts";
import { type Route, sendJson } from "../server.ts";
import { FunctionError, type Functions } from "./runtime.ts";

/** Lambda's Invoke, RequestResponse only. */
export function createInvokeRoute(functions: Functions): Route {
  return async ({ message, url, body }, response) => {
    const [, , , encoded = "", operation] = url.pathname.split("/");
    const name = decodeURIComponent(encoded);
    if (message.method !== "POST" || operation !== "invocations") {
      throw new AwsError("UnknownOperationException", `${message.method} ${url.pathname}`);
    }
    if (!functions.has(name)) {
      throw new AwsError("ResourceNotFoundException", `Function not found: ${name}`, 404);
    }
    try {
      const payload = body.length === 0 ? {} : parseJson(body.toString("utf8"));
      sendJson(response, 200, await functions.invoke(name, payload));
    } catch (error) {
      if (!(error instanceof FunctionError)) throw error;
      response.setHeader("x-amz-function-error", "Unhandled");
      sendJson(response, 200, error.toJson());
    }
  };
}
