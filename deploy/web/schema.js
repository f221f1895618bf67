// The part of JSON Schema (draft 2020-12) that `manifest-1.json` is written in.

const TYPES = {
  object: (value) => value !== null && typeof value === "object" && !Array.isArray(value),
  array: Array.isArray,
  string: (value) => typeof value === "string",
  boolean: (value) => typeof value === "boolean",
  number: (value) => typeof value === "number",
  integer: Number.isSafeInteger,
  null: (value) => value === null,
};

/** What is wrong with `value` by `schema`, the first thing found; null if nothing is. */
export function complaint(value, schema, where = "the manifest", root = schema) {
  if (schema.$ref) {
    const target = schema.$ref.slice(2).split("/").reduce((part, name) => part[name], root);
    const wrong = complaint(value, target, where, root);
    if (wrong) return wrong;
  }
  return plainComplaint(value, schema, where)
    ?? choiceComplaint(value, schema, where, root)
    ?? (TYPES.array(value) ? arrayComplaint(value, schema, where, root) : null)
    ?? (TYPES.object(value) ? objectComplaint(value, schema, where, root) : null);
}

function plainComplaint(value, schema, where) {
  const types = schema.type === undefined ? [] : [schema.type].flat();
  if (types.length && !types.some((type) => TYPES[type](value))) {
    return `${where} must be of the type ${types.join(" or ")}, not ${shown(value)}`;
  }
  if ("const" in schema && value !== schema.const) {
    return `${where} must be ${shown(schema.const)}, not ${shown(value)}`;
  }
  if (schema.enum && !schema.enum.includes(value)) {
    return `${where} must be one of ${schema.enum.join(", ")}, not ${shown(value)}`;
  }
  if (schema.pattern && TYPES.string(value) && !new RegExp(schema.pattern, "u").test(value)) {
    return `${where} must be like ${schema.pattern}, not ${shown(value)}`;
  }
  if (value < schema.minimum || value > schema.maximum || value <= schema.exclusiveMinimum) {
    return `${where} is out of range: ${shown(value)}`;
  }
  return null;
}

function choiceComplaint(value, schema, where, root) {
  const wrongs = (schema.anyOf ?? []).map((choice) => complaint(value, choice, where, root));
  return wrongs.length && wrongs.every(Boolean) ? wrongs[0] : null;
}

function arrayComplaint(value, schema, where, root) {
  if (value.length < schema.minItems || value.length > schema.maxItems) {
    return `${where} has ${value.length} items`;
  }
  if (!schema.items) return null;
  return first(value, (item, i) => complaint(item, schema.items, `${where}[${i}]`, root));
}

function objectComplaint(value, schema, where, root) {
  const { properties = {}, required = [], propertyNames, additionalProperties: others } = schema;
  const missing = required.filter((name) => !Object.hasOwn(value, name));
  if (missing.length) return `${where} lacks ${missing.join(", ")}`;
  if (Object.keys(value).length < schema.minProperties) return `${where} is empty`;
  return first(Object.keys(value), (name) => {
    const inside = `${where}.${name}`;
    if (propertyNames) {
      const wrong = complaint(name, propertyNames, `a name in ${where}`, root);
      if (wrong) return wrong;
    }
    if (Object.hasOwn(properties, name)) return complaint(value[name], properties[name], inside, root);
    if (others === false) return `${where} has an unknown field ${shown(name)}`;
    return others ? complaint(value[name], others, inside, root) : null;
  });
}

function first(items, check) {
  for (const [i, item] of items.entries()) {
    const wrong = check(item, i);
    if (wrong) return wrong;
  }
  return null;
}

function shown(value) {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
