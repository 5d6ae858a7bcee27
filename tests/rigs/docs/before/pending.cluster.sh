# A Pod that waits for more room than there is, and a StatefulSet that is to come.
kubectl create namespace shop
kubectl apply -n shop -f - <<'END'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-db-0}
spec: {storageClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0}
spec:
  nodeSelector: {kubernetes.io/hostname: worker-0}
  containers: [{name: db, image: none, volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data-db-0}}]
END
cat > database.yaml <<'END'
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: database}
spec:
  replicas: 2
  serviceName: database
  selector: {matchLabels: {app: database}}
  template:
    metadata: {labels: {app: database}}
    spec: {containers: [{name: db, image: none, volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {storageClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
END
