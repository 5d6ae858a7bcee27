# An extender that knows one Pod which waits for a volume, and no node.
cat > cluster.yaml <<'END'
kind: List
items:
  - apiVersion: storage.k8s.io/v1
    kind: StorageClass
    metadata: {name: fast}
    provisioner: ullage.io
    volumeBindingMode: WaitForFirstConsumer
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: data-db-0, namespace: shop, uid: c}
    spec: {storageClassName: fast, resources: {requests: {storage: 1Gi}}}
  - apiVersion: v1
    kind: Pod
    metadata: {name: db-0, namespace: shop, uid: p}
    spec: {volumes: [{name: data, persistentVolumeClaim: {claimName: data-db-0}}]}
END
ullage extender --http 127.0.0.1:9254 --objects cluster.yaml &
until curl --silent --fail http://127.0.0.1:9254/readyz; do sleep 0.2; done
