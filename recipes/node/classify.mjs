// Publish a request to Tonestream and print its one result.
import { randomUUID } from 'node:crypto'
import {
  Consumer,
  FetchIsolationLevels,
  ListOffsetTimestamps,
  MessagesStreamModes,
  Producer,
  stringDeserializers,
  stringSerializers
} from '@platformatic/kafka'

const audioUrl = process.argv[2]
if (!audioUrl) {
  console.error('usage: node classify.mjs URL')
  process.exit(2)
}
const bootstrapBrokers = (process.env.KAFKA ?? 'localhost:9092').split(',')
const prefix = process.env.TOPIC_PREFIX ?? 'tonestream'
const requestId = process.env.REQUEST_ID ?? `node-${randomUUID()}`
const results = `${prefix}.results`

const consumer = new Consumer({
  groupId: requestId, // a group of its own: nobody shares its results
  clientId: 'tonestream-node',
  bootstrapBrokers,
  deserializers: stringDeserializers,
  isolationLevel: FetchIsolationLevels.READ_COMMITTED
})
// The ends are noted before the request leaves, so its result can only come behind them.
const ends = await consumer.listOffsets({ topics: [results], timestamp: ListOffsetTimestamps.LATEST })
const offsets = ends.get(results).map((offset, partition) => ({ topic: results, partition, offset }))

const producer = new Producer({
  clientId: 'tonestream-node',
  bootstrapBrokers,
  serializers: stringSerializers,
  idempotent: true
})
const value = JSON.stringify({ request_id: requestId, audio_url: audioUrl })
await producer.send({ messages: [{ topic: `${prefix}.requests`, key: requestId, value }], acks: -1 })
await producer.close()

const stream = await consumer.consume({
  topics: [results],
  mode: MessagesStreamModes.MANUAL,
  offsets,
  autocommit: false,
  maxWaitTime: 250
})
for await (const message of stream) {
  const result = JSON.parse(message.value)
  if (result.request_id === requestId) {
    console.log(JSON.stringify(result))
    break
  }
}
await consumer.close(true)
